// Descriptors with which TMA finds the boxes of a row-major array of bf16, laid out in shared memory with the 128-byte
// swizzle. Elements outside the array read as zeros.
#pragma once

#include <cuda.h>

#include "core/numerics.h"

namespace detinfer {

/// A matrix of `rows` rows of `columns` elements, each row `stride` elements after the last.
/// @param data aligned to 16 bytes @param stride a multiple of 8 @param box_columns 64 at most
/// @throws Error kEngineFailed
CUtensorMap tensor_map_2d(const bf16* data, int64_t columns, int64_t rows, int64_t stride, int box_columns,
                          int box_rows);

/// An array of `slices` contiguous matrices. @throws Error kEngineFailed
CUtensorMap tensor_map_3d(const bf16* data, int64_t columns, int64_t rows, int64_t slices, int box_columns,
                          int box_rows, int box_slices);

}  // namespace detinfer
