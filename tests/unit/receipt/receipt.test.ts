import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';

import { canonicalJson } from '../../../lib/receipt/canonical-json.js';
import { packLogprobs, unpackLogprobs } from '../../../lib/receipt/logprobs.js';
import { parseReceipt } from '../../../lib/receipt/read.js';
import { makeReceipt, type Receipt, samplingOf } from '../../../lib/receipt/receipt.js';
import { readPublicKey, readSigningKey, signatureProblem, signReceipt } from '../../../lib/receipt/signature.js';

const DIGEST = `sha256:${'0'.repeat(64)}`;

const ANSWERED = {
  inputIds: [1, 2, 3],
  sampling: {
    ...{ temperature: 0.7, topK: 5, topP: 0.9, minP: 0.01, frequencyPenalty: 0.5, presencePenalty: -0.25 },
    ...{ repetitionPenalty: 1.1, logitBias: [[4, 1.5]] as [number, number][], seed: 9 },
    grammar: { kind: 'regex' as const, text: 'a+' },
  },
  stop: { stopTokenIds: [7], minNewTokens: 1, maxNewTokens: 10 },
  outputIds: [5, 7],
  logprobs: [-0.1, -2.5],
  finish: { type: 'stop' as const, matched: 7 },
};

const receipt = makeReceipt('contract/1', { weights: DIGEST, config: DIGEST, tokenizer: DIGEST }, ANSWERED);
const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const folder = mkdtempSync(join(tmpdir(), 'detinfer-receipt-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string | Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** Copies of a value, each with one leaf changed. */
function* changes(value: unknown): Generator<unknown> {
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) for (const changed of changes(item)) yield value.with(i, changed);
    yield value.slice(1);
    yield [...value, 1];
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) for (const changed of changes(item)) yield { ...value, [key]: changed };
  } else {
    yield typeof value === 'number' ? value + 1 : `${value}x`;
  }
}

/** What is wrong with a receipt, in its signature or else in its form. */
function problemOf(value: unknown): string | null {
  const problem = signatureProblem(value as Receipt, publicKey);
  if (problem !== null) return problem;
  try {
    parseReceipt(JSON.stringify(value));
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

describe('A receipt', () => {
  test('reads back as it was written', () => {
    expect(parseReceipt(JSON.stringify(receipt))).toEqual(receipt);
    const { sampling, stop } = ANSWERED;
    expect(samplingOf(receipt)).toEqual({ sampling, stop });
  });

  test('keeps every bit of a log-probability', () => {
    const values = Float32Array.from([-0, 0, -1 / 3, -1e-40, -88.7]);
    const read = unpackLogprobs(packLogprobs(values));
    expect([...read].map((value, i) => Object.is(value, values[i]))).toEqual([...values].map(() => true));
  });

  test.each([
    ['no JSON', '{', /not valid JSON/],
    ['no object', '[]', /no JSON object/],
    ['another version', JSON.stringify({ ...receipt, version: 2 }), /version 2/],
    ['an unknown field', JSON.stringify({ ...receipt, extra: 1 }), /"extra"/],
    ['a missing field', JSON.stringify({ ...receipt, output_ids: undefined }), /output_ids is missing/],
    ['a wrong type', JSON.stringify({ ...receipt, prompt_ids: [1.5] }), /prompt_ids/],
    ['a field too many inside', JSON.stringify({ ...receipt, sampling: { ...receipt.sampling, x: 1 } }), /sampling/],
    ['a field too few inside', JSON.stringify({ ...receipt, model: { weights: DIGEST, config: DIGEST } }), /model/],
  ])('with %s is refused', (_, text, message) => {
    expect(() => parseReceipt(text)).toThrow(message);
  });
});

describe('Canonical JSON', () => {
  test('depends on neither the order of keys nor spaces', () => {
    const text = '{"b": [1, {"d": null, "c": "é\\n"}], "a": 1e2}';
    expect(canonicalJson(JSON.parse(text))).toBe('{"a":100,"b":[1,{"c":"é\\n","d":null}]}');
  });
});

describe('A signature', () => {
  const signed = signReceipt(receipt, privateKey);

  test('is that of its key, through any order of fields', () => {
    expect(signatureProblem(signed, publicKey)).toBeNull();
    const reversed = Object.fromEntries(Object.entries(signed).reverse()) as unknown as Receipt;
    expect(signatureProblem(parseReceipt(JSON.stringify(reversed, null, 2)), publicKey)).toBeNull();
  });

  test('does not fit when anything at all was changed', () => {
    let count = 0;
    for (const changed of changes(signed)) {
      expect(problemOf(changed)).not.toBeNull();
      count++;
    }
    expect(count).toBeGreaterThan(40);
  });

  test('is missed, and that of another key is refused', () => {
    expect(signatureProblem(receipt, publicKey)).toMatch(/no signature/);
    expect(signatureProblem(signed, generateKeyPairSync('ed25519').publicKey)).toMatch(/names the key/);
  });

  test('is made with keys in PEM, of Ed25519 alone', () => {
    const secret = file('key.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }));
    const shown = file('key.pub', publicKey.export({ type: 'spki', format: 'pem' }));
    expect(signatureProblem(signReceipt(receipt, readSigningKey(secret)), readPublicKey(shown))).toBeNull();
    const { privateKey: ec } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    expect(() => readSigningKey(file('ec.pem', ec.export({ type: 'pkcs8', format: 'pem' })))).toThrow(/it is of ec/);
    expect(() => readSigningKey(shown)).toThrow(/--signing-key .*private key of Ed25519/);
    expect(() => readPublicKey(secret)).toThrow(/it is a private key/);
    expect(() => readSigningKey(join(folder, 'none'))).toThrow(/ENOENT/);
  });
});
