// What prefill does with matrix fragments, beside core/ptx.cuh. Products are transposed: keys or columns of values are
// the 16 rows of an accumulator, query rows its 8 columns. A thread's element e of four lies in row
// (lane / 4) + 8 · (e / 2) and column 2 · (lane % 4) + e % 2.
#pragma once

#include "core/ptx.cuh"

namespace detinfer::flashinfer {

/// Two 8x8 matrices of bf16; lane i < 16 gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_two_matrices(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}

/// An 8x8 matrix of bf16, of which every thread holds two neighbours in a row, transposed.
__device__ __forceinline__ uint32_t transpose(uint32_t pair) {
  uint32_t result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

/// The first k16 step of a chain: it starts from zero.
__device__ __forceinline__ void mma_m16n8k16_first(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, "
      "%10, %10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

}  // namespace detinfer::flashinfer
