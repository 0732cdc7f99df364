#include <algorithm>
#include <cstring>
#include <vector>

#include "core/cpu_isa.h"
#include "core/thread_pool.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_panel.h"
#include "kernels/linear/linear_tile.h"
#include "kernels/mlp/swiglu.h"
#include "kernels/mma16/mma16.h"

namespace detinfer {
namespace {

using TileFunction = void (*)(const LinearTile&);

TileFunction tile_function() {
#if defined(__x86_64__)
  if (cpu_isa() == CpuIsa::kAvx512) return linear_tile_avx512;
  if (cpu_isa() == CpuIsa::kAvx2) return linear_tile_avx2;
#endif
  return linear_tile_portable;
}

float exact_output(const LinearTile& tile, int row, int column) {
  const uint32_t* w = tile.weights + column;
  const float* values = tile.rows[row].values;
  float acc = 0.0f;
  for (int step = 0; step < tile.steps; ++step) {
    bf16 a[kStepTerms], b[kStepTerms];
    for (int j = 0; j < kStepTerms / 2; ++j, w += kPanelColumns, values += 2) {
      a[2 * j] = to_bf16(values[0]);
      a[2 * j + 1] = to_bf16(values[1]);
      b[2 * j] = bf16{uint16_t(*w)};
      b[2 * j + 1] = bf16{uint16_t(*w >> 16)};
    }
    acc = mma16(a, b, 1, acc);
  }
  return acc;
}

void set(float& y, float sum) { y = sum; }
void set(bf16& y, float sum) { y = to_bf16(sum); }

/// Elements of a row that are packed before the next row's: a cache line, whose place in the panel stays in the cache.
constexpr int kPackedAtOnce = 32;

/// Puts some elements of a row into a column of a panel, two at a time, as they lie in both.
void pack_column(const bf16* row, int count, bf16* out) {
  for (int i = 0; i + 1 < count; i += 2) std::memcpy(out + i * kPanelColumns, row + i, 2 * sizeof(bf16));
  if (count % 2 != 0) out[(count - 1) * kPanelColumns] = row[count - 1];
}

/// The largest exponent field, in place. Signed, since not every instruction set has the other maximum.
int16_t largest_field(const bf16* row, int count) {
  int16_t largest = 0;
  for (int i = 0; i < count; ++i) largest = std::max(largest, int16_t(row[i].bits & 0x7F80));
  return largest;
}

/// What becomes of a row's sums of a panel.
template <class Out>
struct Store {
  const PackedMatrix& w;
  const bf16* bias;
  Out* y;

  void operator()(int64_t row, int first, const float* sums, int columns) const {
    Out* const to = y + row * w.n + first;
    for (int c = 0; c < columns; ++c) set(to[c], bias ? sums[c] + to_float(bias[first + c]) : sums[c]);
  }
};

/// Calls store(row, first column, sums, columns) for all panels of all rows.
template <class Store>
void run(ThreadPool& pool, const bf16* x, int rows, const PackedMatrix& w, const Store& store) {
  if (rows == 0) return;
  // Kept between calls: a step of the model is hundreds of them.
  static thread_local PreparedRows prepared;
  prepared.prepare(pool, x, rows, w.k, w.padded_k());
  const ChainRow* const prepared_rows = prepared.rows.data();
  const int row_tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t work = int64_t(std::min(rows, kTileRows)) * kPanelColumns * w.padded_k();
  pool.parallel_for(int64_t(w.panels()) * row_tiles, std::max<int64_t>(1, kGrainWork / work),
                    [&](int64_t begin, int64_t end) {
    float buffer[kTileRows * kPanelColumns];
    for (int64_t i = begin; i < end; ++i) {
      const int panel = int(i / row_tiles);
      const int first_row = int(i % row_tiles) * kTileRows;
      const int row_count = std::min(kTileRows, rows - first_row);
      multiply_panel(w, panel, prepared_rows + first_row, row_count, buffer);
      const int first_column = panel * kPanelColumns;
      const int columns = std::min(kPanelColumns, w.n - first_column);
      for (int r = 0; r < row_count; ++r) {
        store(first_row + r, first_column, buffer + r * kPanelColumns, columns);
      }
    }
  });
}

}  // namespace

void PreparedRows::prepare(ThreadPool& pool, const bf16* x, int count, int k, int padded) {
  values.resize(int64_t(count) * padded);
  exponents.resize(int64_t(count) * padded / 2);
  rows.resize(count);
  pool.parallel_for(count, std::max<int64_t>(1, kGrainWork / 4 / padded), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* v = values.data() + i * padded;
      uint32_t* e = exponents.data() + i * padded / 2;
      rows[i] = ChainRow{v, e, prepare_chain_row(x + i * k, k, padded, v, e)};
    }
  });
}

void multiply_panel(const PackedMatrix& w, int panel, const ChainRow* rows, int count, float* out) {
  LinearTile tile;
  tile.weights =
      reinterpret_cast<const uint32_t*>(w.data.data()) + int64_t(panel) * kPanelColumns * w.padded_k() / 2;
  tile.steps = w.padded_k() / kStepTerms;
  tile.max_exponent = w.max_exponent;
  tile.rows = rows;
  tile.row_count = count;
  tile.out = out;
  tile.exact = exact_output;
  tile_function()(tile);
}

PackedMatrix pack_matrix(ThreadPool& pool, const bf16* weights, int n, int k) {
  PackedMatrix packed;
  packed.n = n;
  packed.k = k;
  const int padded = packed.padded_k();
  packed.data = AlignedBuffer<bf16>(int64_t(packed.panels()) * kPanelColumns * padded);
  std::vector<int16_t> largest(packed.panels(), 0);
  pool.parallel_for(packed.panels(), std::max<int64_t>(1, kGrainWork / (int64_t(kPanelColumns) * padded)),
                    [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int first = 0; first < k; first += kPackedAtOnce) {
        bf16* const out = packed.data.data() + (panel * padded + first) * kPanelColumns;
        const int count = std::min(kPackedAtOnce, k - first);
        for (int c = 0; c < kPanelColumns; ++c) {
          // A column past the end repeats the last one: a column of zeros would leave the fast path.
          const bf16* const row = weights + std::min<int64_t>(panel * kPanelColumns + c, n - 1) * k + first;
          pack_column(row, count, out + c * 2);
          largest[panel] = std::max(largest[panel], largest_field(row, count));
        }
      }
    }
  });
  packed.max_exponent = *std::max_element(largest.begin(), largest.end()) >> 7;
  return packed;
}

void linear_cpu(ThreadPool& pool, const bf16* x, int rows, const PackedMatrix& w, const bf16* bias, float* y) {
  run(pool, x, rows, w, Store<float>{w, bias, y});
}

void linear_cpu(ThreadPool& pool, const bf16* x, int rows, const PackedMatrix& w, const bf16* bias, bf16* y) {
  run(pool, x, rows, w, Store<bf16>{w, bias, y});
}

void linear_swiglu_cpu(ThreadPool& pool, const bf16* x, int rows, const PackedMatrix& w, bf16* y) {
  run(pool, x, rows, w, [&](int64_t row, int first, const float* sums, int columns) {
    swiglu_of_sums(sums, columns, y + (row * w.n + first) / 2);
  });
}

}  // namespace detinfer
