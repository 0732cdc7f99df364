// Results of a tile that are stored while the next one is multiplied: each of its first steps leaves a warp idle for
// longer than storing a part of them takes.
#pragma once

#include "kernels/linear/linear_store.cuh"

namespace detinfer::linear {

/// A warp's 16 tokens by kColumns outputs in half the registers of their accumulators: bf16 in pairs.
template <int kColumns>
class Pending {
  static constexpr int kPieces = kColumns / 8, kWords = kColumns / 4, kPart = 8, kParts = kWords / kPart;
  static_assert(kParts % 2 == 0 && kParts * kPart == kWords, "a part has 8 of the 16 tokens");

 public:
  /// Takes what is in the accumulators.
  /// @param output the tile's first
  __device__ __forceinline__ void take(const Output& out, float (&acc)[kColumns / 2], int output, int lane) {
    add_bias<kColumns>(out, acc, output, lane % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) {
        words_[half * kPieces + j] = pack_bf16(acc[j * 4 + 2 * half], acc[j * 4 + 2 * half + 1]);
      }
    }
  }

  /// @param part of LinearTile::pending_parts(), the same for the whole warp @param token, output the tile's first
  /// @param rows_left tokens that exist
  __device__ __forceinline__ void store_part(const Output& out, int part, int token, int rows_left, int output,
                                             int lane) const {
    // Selected, as registers have no addresses. If the words moved up instead, each step of the chain would copy them.
    uint32_t words[kPart];
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      words[i] = words_[i];
#pragma unroll
      for (int p = 1; p < kParts; ++p) words[i] = p == part ? words_[p * kPart + i] : words[i];
    }
    const int row = part / (kParts / 2) * 8 + lane / 4, column = output + part % (kParts / 2) * kPart * 8;
    const bool exists = row < rows_left;
    bf16* const y = static_cast<bf16*>(out.y);
    if (out.kind == LinearOutput::kSwiglu) {
      uint32_t gates[kPart / 2], ups[kPart / 2];
#pragma unroll
      for (int j = 0; j < kPart / 2; ++j) {
        gates[j] = words[2 * j];
        ups[j] = words[2 * j + 1];
      }
      swiglu(gates, ups, exists);
      store_pieces(gates, y + size_t(token + row) * (out.n / 2), out.n / 2, column / 2, exists, lane % 4);
    } else {
      store_pieces(words, y + size_t(token + row) * out.n, out.n, column, exists, lane % 4);
    }
  }

 private:
  uint32_t words_[kWords];
};

}  // namespace detinfer::linear
