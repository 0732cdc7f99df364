#include "core/tensor_map.cuh"

#include "core/driver.cuh"

namespace detinfer {
namespace {

/// @param sizes, strides, box fastest dimension first; strides in elements, of all dimensions but the first
template <int kDims>
CUtensorMap encode(const bf16* data, const cuuint64_t (&sizes)[kDims], const cuuint64_t (&strides)[kDims - 1],
                   const cuuint32_t (&box)[kDims]) {
  static const auto encoder = driver_function<decltype(&cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  cuuint64_t bytes[kDims - 1];
  cuuint32_t steps[kDims];
  for (int i = 0; i < kDims - 1; ++i) bytes[i] = strides[i] * sizeof(bf16);
  for (int i = 0; i < kDims; ++i) steps[i] = 1;
  CUtensorMap map;
  // A box's rows are 128 bytes. Promoted to 256, each load asks memory for its neighbour's, too, and a weight matrix is
  // read 4% slower.
  check_driver(encoder(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kDims, const_cast<bf16*>(data), sizes, bytes, box, steps,
                       CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                       CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
               "cuTensorMapEncodeTiled");
  return map;
}

}  // namespace

CUtensorMap tensor_map_2d(const bf16* data, int64_t columns, int64_t rows, int64_t stride, int box_columns,
                          int box_rows) {
  const cuuint64_t sizes[2] = {cuuint64_t(columns), cuuint64_t(rows)}, strides[1] = {cuuint64_t(stride)};
  const cuuint32_t box[2] = {cuuint32_t(box_columns), cuuint32_t(box_rows)};
  return encode(data, sizes, strides, box);
}

CUtensorMap tensor_map_3d(const bf16* data, int64_t columns, int64_t rows, int64_t slices, int box_columns,
                          int box_rows, int box_slices) {
  const cuuint64_t sizes[3] = {cuuint64_t(columns), cuuint64_t(rows), cuuint64_t(slices)};
  const cuuint64_t strides[2] = {cuuint64_t(columns), cuuint64_t(columns * rows)};
  const cuuint32_t box[3] = {cuuint32_t(box_columns), cuuint32_t(box_rows), cuuint32_t(box_slices)};
  return encode(data, sizes, strides, box);
}

}  // namespace detinfer
