// The rows of a warp and their products, for all the columns of a head: nothing of them is shared with other warps.
// Products are transposed, keys times queries and values times weights: so a warp may take any eights of rows, and what
// it reads from shared memory serves all of them.
#pragma once

#include "attention/flashinfer/fragments.cuh"
#include "attention/flashinfer/loader.cuh"
#include "attention/rules.cuh"

namespace detinfer::flashinfer {

/// @tparam kShared whether the thread block has a share, see deal()
template <int D, bool kShared>
class Rows {
 public:
  __device__ __forceinline__ Rows(const PrefillArgs& args, uint8_t* memory)
      : args_(args),
        memory_(memory),
        shared_(shared_address(memory)),
        first_row_(own_warp() * kWarpRows<D>),
        ring_(args, shared_) {}

 protected:
  using S = Shared<D>;
  static constexpr int kTiles = kRowTiles<D>, kKeyTiles = kBlockKeys / 16, kColumnTiles = D / 16;
  /// Left operands that are held at a time: all but one are on their way.
  static constexpr int kDeep = 2;

  __device__ __forceinline__ static int lane() { return threadIdx.x % 32; }
  __device__ __forceinline__ static int quad() { return threadIdx.x % 32 / 4; }
  __device__ __forceinline__ static int in_quad() { return threadIdx.x % 4; }

  /// Where 16 bytes of a row of queries lie.
  __device__ __forceinline__ uint32_t query(int row, int unit) const {
    return S::kQueries + row * S::kRow + ((unit ^ row % 8) << 4);
  }

  /// The right operand of columns 16 · k … of all rows.
  __device__ __forceinline__ void load_right(uint32_t (&q)[kTiles][2], uint32_t queries, int k) const {
    queries = (queries ^ k % 4 * 32) + k / 4 * 128;
#pragma unroll
    for (int n = 0; n + 1 < kTiles; n += 2) {
      uint32_t r[4];
      load_matrices(r, queries + n * 8 * S::kRow);
      q[n][0] = r[0], q[n][1] = r[1], q[n + 1][0] = r[2], q[n + 1][1] = r[3];
    }
    if constexpr (kTiles % 2 == 1) load_two_matrices(q[kTiles - 1], queries + (kTiles - 1) * 8 * S::kRow);
  }

  /// The scores of the block whose keys are in the ring's next stage.
  __device__ __forceinline__ void compute_scores() {
    constexpr int kSteps = D / 16 * kKeyTiles;
    const int row = lane() % 16, matrix = lane() / 8;
    const uint32_t keys = ring_.wait() + row * S::kRow + ((lane() / 16 ^ row % 8) << 4);
    const uint32_t queries = shared_ + query(first_row_ + (matrix >> 1) * 8 + lane() % 8, matrix & 1);
    const auto load_left = [&](uint32_t(&a)[4], int step) {
      const int k = step / kKeyTiles;
      load_matrices(a, (keys ^ k % 4 * 32) + k / 4 * 128 + step % kKeyTiles * 16 * S::kRow);
    };
    uint32_t q[2][kTiles][2], a[kDeep][4];
    load_right(q[0], queries, 0);
#pragma unroll
    for (int step = 0; step < kDeep - 1; ++step) load_left(a[step], step);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int k = step / kKeyTiles, m = step % kKeyTiles;
      if (step + kDeep - 1 < kSteps) load_left(a[(step + kDeep - 1) % kDeep], step + kDeep - 1);
      if (m == kKeyTiles / 2 && k + 1 < D / 16) load_right(q[(k + 1) % 2], queries, k + 1);
      if (step == kSteps / 8) ring_.feed();
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        if (k == 0) {
          mma_m16n8k16_first(scores_[m][n], a[step % kDeep], q[k % 2][n][0], q[k % 2][n][1]);
        } else {
          mma_m16n8k16(scores_[m][n], a[step % kDeep], q[k % 2][n][0], q[k % 2][n][1]);
        }
      }
    }
    ring_.release();
  }

  /// The right operand of 16 keys for a tile of rows: their weights, transposed.
  __device__ __forceinline__ void weigh(uint32_t (&w)[2], int m, int n) const {
    float x[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) x[e] = weight(__fmaf_rn(scores_[m][n][e], args_.scale, -max_[n][e % 2]));
    w[0] = transpose(pack_bf16(x[0], x[1]));
    w[1] = transpose(pack_bf16(x[2], x[3]));
  }

  /// Adds the weights of two tiles of rows, of which the second may not be there. Here rows are the 16 of an
  /// accumulator: a left operand lies in registers like two right ones.
  __device__ __forceinline__ static void add_weights(float (&sums)[4], const uint32_t (&w)[kTiles][2], int n) {
    constexpr uint32_t kOnes = 0x3F803F80;
    const bool two = n + 1 < kTiles;
    mma_m16n8k16(sums, {w[n][0], two ? w[n + 1][0] : 0, w[n][1], two ? w[n + 1][1] : 0}, kOnes, kOnes);
  }

  /// Adds the weights and their products with the values in the ring's next stage. Weights are computed 16 keys ahead.
  __device__ __forceinline__ void add_values() {
    constexpr int kSteps = kKeyTiles * kColumnTiles, kEvery = kColumnTiles / kTiles;
    const int matrix = lane() / 8;
    uint32_t w[2][kTiles][2], a[kDeep][4];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) weigh(w[0][n], 0, n);
    const uint32_t values =
        ring_.wait() + ((matrix >> 1) * 8 + lane() % 8) * S::kRow + (((matrix & 1) ^ lane() % 8) << 4);
    const auto load_left = [&](uint32_t(&a)[4], int step) {
      const int m = step % kColumnTiles;
      load_matrices_transposed(a, (values ^ m % 4 * 32) + m / 4 * 128 + step / kColumnTiles * 16 * S::kRow);
    };
    float sums[kTiles / 2 + kTiles % 2][4];
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      sums[n / 2][0] = sums[n / 2][1] = sums_[n];
      sums[n / 2][2] = sums[n / 2][3] = n + 1 < kTiles ? sums_[n + 1] : 0.0f;
    }
#pragma unroll
    for (int step = 0; step < kDeep - 1; ++step) load_left(a[step], step);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int k = step / kColumnTiles, m = step % kColumnTiles;
      if (step + kDeep - 1 < kSteps) load_left(a[(step + kDeep - 1) % kDeep], step + kDeep - 1);
      if (step == kSteps / 8) ring_.feed();
      if (m % kEvery == 0 && m / kEvery < kTiles && k + 1 < kKeyTiles) {
        weigh(w[(k + 1) % 2][m / kEvery], k + 1, m / kEvery);
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n) mma_m16n8k16(out_[m][n], a[step % kDeep], w[k % 2][n][0], w[k % 2][n][1]);
      if (m == kColumnTiles - 1) {
#pragma unroll
        for (int n = 0; n < kTiles; n += 2) add_weights(sums[n / 2], w[k % 2], n);
      }
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) sums_[n] = sums[n / 2][n % 2 * 2];
    ring_.release();
  }

  const PrefillArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const int first_row_;
  Ring<D, kShared> ring_;
  float scores_[kKeyTiles][kTiles][4];
  float out_[kColumnTiles][kTiles][4];
  /// Sum of the weights of row lane / 4 of each tile of rows.
  float sums_[kTiles];
  float max_[kTiles][2];
};

}  // namespace detinfer::flashinfer
