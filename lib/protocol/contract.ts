/** Version of the numeric contract that this build implements (docs/numerics.md, cuda/core/numerics.h). */
export const NUMERIC_CONTRACT = 'detinfer-numerics/1';
