// Matrix products of a warpgroup: 64 rows, f32 accumulators in registers, the right operand in shared memory.
// An accumulator's element i of a thread lies in row (lane / 4) + 8 · (i / 2 % 2) of its warp's 16 rows and in column
// 8 · (i / 4) + 2 · (lane % 4) + i % 2.
#pragma once

#include <cstdint>

#include "core/wgmma.cuh"

namespace detinfer::fa3 {

/// Descriptor of a matrix in shared memory with the 128-byte swizzle, address 1024-aligned up to the k offset.
/// K-major: 8 rows follow 1024 bytes after 8 rows; chunk_bytes is unused. MN-major: chunk_bytes lie between pieces of
/// 64 columns, and 8 rows (of k) follow 1024 bytes after 8.
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, uint32_t chunk_bytes) {
  constexpr uint64_t kRowGroups = uint64_t(1024 >> 4) << 32, kSwizzle128 = uint64_t(1) << 62;
  return uint64_t((address & 0x3FFFF) >> 4) | uint64_t(chunk_bytes >> 4) << 16 | kRowGroups | kSwizzle128;
}

#define DETINFER_REGS_0_31                                                                                            \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, " \
  "%25, %26, %27, %28, %29, %30, %31"
#define DETINFER_REGS_32_63                                                                                            \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, " \
  "%55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DETINFER_F4(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define DETINFER_F16(x, i) \
  DETINFER_F4(x, i), DETINFER_F4(x, i + 4), DETINFER_F4(x, i + 8), DETINFER_F4(x, i + 12)
#define DETINFER_F32(x, i) DETINFER_F16(x, i), DETINFER_F16(x, i + 16)

/// d (+)= a · bᵀ for 128 columns; a and b K-major in shared memory. @param accumulate 0 starts from zero
__device__ __forceinline__ void wgmma_scores(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" DETINFER_REGS_0_31 ", " DETINFER_REGS_32_63
      "}, %64, %65, p, 1, 1, 0, 0;\n}"
      : DETINFER_F32(d, 0), DETINFER_F32(d, 32)
      : "l"(a), "l"(b), "r"(accumulate));
}

/// [d | sums] (+)= a · [b | ones]: a, four registers, is 64 rows by 16 keys; b is MN-major with 128 columns, and behind
/// them, at the same distance of chunks, lie 8 columns of ones. So the row sums cost next to nothing.
__device__ __forceinline__ void wgmma_values(float (&d)[64], float (&sums)[4], const uint32_t* a, uint64_t b,
                                             int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %73, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n136k16.f32.bf16.bf16 {" DETINFER_REGS_0_31 ", " DETINFER_REGS_32_63
      ", %64, %65, %66, %67}, {%68, %69, %70, %71}, %72, p, 1, 1, 1;\n}"
      : DETINFER_F32(d, 0), DETINFER_F32(d, 32), DETINFER_F4(sums, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));
}

/// The same for 64 columns.
__device__ __forceinline__ void wgmma_values(float (&d)[32], float (&sums)[4], const uint32_t* a, uint64_t b,
                                             int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %41, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n72k16.f32.bf16.bf16 {" DETINFER_REGS_0_31
      ", %32, %33, %34, %35}, {%36, %37, %38, %39}, %40, p, 1, 1, 1;\n}"
      : DETINFER_F32(d, 0), DETINFER_F4(sums, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));
}

#undef DETINFER_F32
#undef DETINFER_F16
#undef DETINFER_F4
#undef DETINFER_REGS_32_63
#undef DETINFER_REGS_0_31

}  // namespace detinfer::fa3
