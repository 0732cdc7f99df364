// embedding and the picking of rows on a GPU.
#pragma once

#include <cstdint>

#include "kernels/linear/linear_cuda.h"

namespace detinfer {

/// y[i] = table[ids[i]], or table[drawn[-1 - ids[i]]] for a negative id: a token that the step before has drawn and that
/// the host does not know yet. @param ids [count] @param y [count][table.k] @throws Error kEngineFailed
void embedding_cuda(const DeviceMatrix& table, const int32_t* ids, int count, const int32_t* drawn, bf16* y,
                    cudaStream_t stream);

/// y[i] = x[rows[i]]. @param x [any][n] @param rows [count] @param y [count][n] @throws Error kEngineFailed
void gather_rows_cuda(const bf16* x, const int32_t* rows, int count, int n, bf16* y, cudaStream_t stream);

}  // namespace detinfer
