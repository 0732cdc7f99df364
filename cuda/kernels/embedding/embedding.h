// embedding: a copy of the table's row.
#pragma once

#include "kernels/linear/linear.h"

namespace detinfer {

/// y[i] = table[rows[i]]: the readable reference of the embedding, and how single rows of activations are picked.
/// @param table [any][n] row-major @param rows [count] @param y [count][n]
void gather_rows(ThreadPool& pool, const bf16* table, const int32_t* rows, int count, int n, bf16* y);

/// The same from a packed matrix, so that a table that is also the output head is kept once. @param y [count][table.k]
void embedding_cpu(ThreadPool& pool, const PackedMatrix& table, const int32_t* ids, int count, bf16* y);

}  // namespace detinfer
