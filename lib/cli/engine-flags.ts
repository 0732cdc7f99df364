import type { ClientFlag } from './client-command.js';
import { jsonObject, oneOf } from './flag-values.js';

/** Flags of the commands that load a model themselves, without a server. */
export const ENGINE_FLAGS: ClientFlag[] = [
  {
    flags: '--load-format <format>',
    help: 'auto, or dummy for random weights from config.json alone',
    preset: 'auto',
    parse: oneOf('auto', 'dummy'),
  },
  {
    flags: '--json-model-override-args <json>',
    help: 'JSON object laid over config.json',
    preset: '{}',
    parse: jsonObject(),
  },
  {
    flags: '--device <device>',
    help: 'cpu or cuda (a GPU by default where one answers)',
    parse: oneOf('cpu', 'cuda'),
  },
];
