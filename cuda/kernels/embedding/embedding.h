// embedding: a copy of the table's row.
#pragma once

#include "kernels/linear/linear.h"

namespace detinfer {

/// The readable reference. @param ids [rows], each below the table's n @param table [n][k] row-major @param y [rows][k]
void embedding_reference(const int32_t* ids, int rows, const bf16* table, int k, bf16* y);

/// Reads from a packed matrix, so that a table that is also the output head is kept once.
void embedding_cpu(ThreadPool& pool, const int32_t* ids, int rows, const PackedMatrix& table, bf16* y);

}  // namespace detinfer
