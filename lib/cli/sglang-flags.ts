import { DetinferError } from '../protocol/errors.js';
import { integer, oneOf, type ParseValue } from './flag-values.js';

/**
 * SGLang's flags that `detinfer launch` takes although there is nothing to set. `note` is printed at start-up when the
 * flag is given, so that nothing is ignored in silence.
 */
export interface AcceptedFlag {
  names: [string, ...string[]];
  value: string | null;
  parse: ParseValue<unknown>;
  note: string;
}

/** One value alone makes sense until there is more than one device. */
const onlyOne =
  (name: string): ParseValue<number> =>
  (text) => {
    const value = integer({ min: 1 })(text);
    if (value !== 1) throw new DetinferError('UNSUPPORTED', `${name} ${value}: this version runs on one device; use 1.`);
    return value;
  };

export const ACCEPTED_FLAGS: AcceptedFlag[] = [
  {
    names: ['--tp-size', '--tp', '--tensor-parallel-size'],
    value: '1',
    parse: onlyOne('--tp-size'),
    note: 'one device is what this version runs on',
  },
  {
    names: ['--sampling-backend'],
    value: 'NAME',
    parse: oneOf('pytorch', 'flashinfer'),
    note: 'no effect: either name means the one sampler of the numeric contract',
  },
  {
    names: ['--grammar-backend'],
    value: 'NAME',
    parse: oneOf('xgrammar', 'outlines', 'llguidance'),
    note: 'no effect: each name means the one grammar engine, which is exact; docs/api.md says what it takes',
  },
  {
    names: ['--enable-memory-saver'],
    value: null,
    parse: (given) => given,
    note: 'no effect: /release_memory_occupation always works',
  },
];

/** SGLang's flags that are refused for a reason of their own. */
const REFUSED_FLAGS = new Map([
  ['--download-dir', 'models are downloaded into the cache that Python tools use, too; set HF_HUB_CACHE to move it'],
]);

/** The rest of SGLang's flags, by name or by prefix (those that end in a dash): known, and refused as unsupported. */
const OTHER_FLAGS = `
  --allow-auto-truncate --bucket- --chunked-prefix- --collect-tokens-histogram --completion-template --config
  --constrained-json- --cpu-offload-gb --crash-dump-folder --cuda-graph-bs --custom-weight-loader --debug-tensor-dump-
  --decode-attention-backend --deepep-mode --delete-ckpt-after-loading --disable-chunked-prefix-cache
  --disable-cuda-graph-padding --disable-custom-all-reduce --disable-fast-image-processor
  --disable-flashinfer- --disable-hybrid-swa-memory --disable-outlines-disk-cache
  --disable-shared-experts-fusion --disaggregation- --dist-init-addr --dist-timeout --ds-
  --enable-cache-report --enable-custom-logit-processor --enable-deepep-moe --enable-dp- --enable-double-sparsity
  --enable-dynamic- --enable-eplb --enable-expert- --enable-flashinfer- --enable-hierarchical-cache --enable-lora
  --enable-metrics-for-all-schedulers --enable-mixed-chunk --enable-mscclpp --enable-multimodal
  --enable-nan-detection --enable-nccl-nvls --enable-p2p-check --enable-pdmux --enable-priority-scheduling
  --enable-profile- --enable-request-time-stats-logging --enable-return-hidden-states --enable-symm-mem
  --enable-tokenizer-batch-encode --enable-torch-compile --enable-trace --enable-two-batch-overlap
  --enable-weights-cpu-backup --ep --ep- --eplb- --expert- --fastapi-root-path --file-storage-path --flashinfer-
  --gpu-id-step --grpc-mode --hf-chat-template-name --hicache- --hybrid-kvcache-ratio --init-expert-
  --is-embedding --keep-mm-feature-on-device --kv-events-config --load-balance-method --log-level-http
  --log-requests-level --lora- --mamba- --max-lora- --max-loaded-loras --max-loras-per-batch --max-micro-batch-size
  --mm- --model-impl --model-loader-extra-config --modelopt- --moe- --multi-item- --nccl-init-addr --nccl-port --nnodes
  --node-rank --nsa- --num-continuous-decode-steps --num-reserved-decode-tokens --otlp-traces-endpoint
  --pipeline-parallel-size --pp-size --preferred-sampling-params --prefill- --priority- --quantization
  --quantization-param-path --radix-eviction-policy --reasoning-parser --remote-instance- --rl-on-policy-target
  --sampling-defaults --schedule-conservativeness --schedule-low-priority-values-first --scheduler-recv-interval
  --show-time-cost --sleep-on-idle --speculative- --stream-output --swa- --tbo- --tokenizer-mode --tokenizer-worker-num
  --tool-call-parser --tool-server --torch-compile-max-bs --torchao-config --triton- --warmups
  --weight-loader-disable-mmap
`
  .trim()
  .split(/\s+/);

/** Why a flag of SGLang is refused, or undefined for a flag that SGLang does not have either. */
export function refusal(name: string): string | undefined {
  const reason = REFUSED_FLAGS.get(name);
  if (reason !== undefined) return reason;
  const known = OTHER_FLAGS.some((other) => (other.endsWith('-') ? name.startsWith(other) : name === other));
  return known ? 'a flag of SGLang that this version does not support' : undefined;
}

/** The flags that are refused with a reason of their own, for the documentation. */
export const REFUSALS: ReadonlyMap<string, string> = REFUSED_FLAGS;
