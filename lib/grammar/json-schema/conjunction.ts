import { unsupported } from '../errors.js';
import { fitsType, type Flat, isSame, propertiesOf, type TypeName, TYPES } from './keywords.js';

const LARGER_WINS = new Set(['minimum', 'exclusiveMinimum', 'minLength', 'minItems', 'minProperties']);
const SMALLER_WINS = new Set(['maximum', 'exclusiveMaximum', 'maxLength', 'maxItems', 'maxProperties']);

/** One schema for what fits both, or null where nothing can. @throws DetinferError where that is no single schema. */
export function conjunction(a: Flat, b: Flat, path: string): Flat | null {
  const result: Record<string, unknown> = { ...a };
  for (const [name, value] of Object.entries(b)) {
    const mine = a[name];
    if (mine === undefined) result[name] = value;
    else if (name === 'type') result[name] = commonTypes(mine as TypeName[], value as TypeName[]);
    else if (name === 'enum')
      result[name] = (mine as unknown[]).filter((x) => (value as unknown[]).some((y) => isSame(x, y)));
    else if (name === 'required') result[name] = [...new Set([...(mine as string[]), ...(value as string[])])];
    else if (LARGER_WINS.has(name)) result[name] = Math.max(mine as number, value as number);
    else if (SMALLER_WINS.has(name)) result[name] = Math.min(mine as number, value as number);
    else if (name === 'properties' || name === 'additionalProperties') continue;
    else if (!isSame(mine, value)) throw unsupported(`Two different ${name} at ${path} can't be enforced together.`);
  }
  const arrays = ['items', 'prefixItems', 'additionalItems'];
  if (
    arrays.some((name) => !isSame(a[name], b[name])) &&
    arrays.some((x) => a[x] !== undefined) &&
    arrays.some((x) => b[x] !== undefined)
  ) {
    throw unsupported(`Two different kinds of items at ${path} can't be enforced together.`);
  }
  Object.assign(result, commonProperties(a, b, path));
  if (result['enum'] && result['type']) {
    result['enum'] = (result['enum'] as unknown[]).filter((value) => fitsType(value, result['type'] as TypeName[]));
  }
  const isEmpty = (name: string): boolean => (result[name] as unknown[] | undefined)?.length === 0;
  return isEmpty('type') || isEmpty('enum') ? null : result;
}

function commonTypes(a: readonly TypeName[], b: readonly TypeName[]): TypeName[] {
  const inBoth = (type: TypeName): boolean =>
    [a, b].every((types) => types.includes(type) || (type === 'integer' && types.includes('number')));
  return TYPES.filter((type) => inBoth(type) && !(type === 'integer' && inBoth('number')));
}

/** A property that only one side declares must fit what the other says of additional ones. */
function commonProperties(a: Flat, b: Flat, path: string): Record<string, unknown> {
  const sides = [a, b].map((flat) => ({
    properties: propertiesOf(flat, path),
    additional: flat['additionalProperties'],
  }));
  if (sides.every(({ properties, additional }) => properties === null && additional === undefined)) return {};
  const names = new Set(sides.flatMap(({ properties }) => Object.keys(properties ?? {})));
  const all = (schemas: unknown[]): unknown => {
    const given = schemas.filter((schema) => schema !== undefined && schema !== true);
    return given.length === 0 ? true : given.length === 1 ? given[0] : { allOf: given };
  };
  const merged = [...names].map((name) => {
    const parts = sides.map(({ properties, additional }) =>
      properties !== null && Object.hasOwn(properties, name) ? properties[name] : additional,
    );
    return [name, all(parts)] as const;
  });
  const additional = sides.map((side) => side.additional).filter((schema) => schema !== undefined);
  return {
    ...(names.size > 0 && { properties: Object.fromEntries(merged) }),
    ...(additional.length > 0 && { additionalProperties: all(additional) }),
  };
}
