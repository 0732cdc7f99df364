#include <algorithm>

#include "core/thread_pool.h"
#include "kernels/embedding/embedding.h"
#include "kernels/linear/linear.h"
#include "tests/native/gate_up.h"
#include "tests/native/isa.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

/// The fast path against a linear of gates above ups, rounded, and SwiGLU behind it.
void check_swiglu(ThreadPool& pool, const std::vector<bf16>& x, int rows, const std::vector<bf16>& w, int n, int k,
                  const std::string& what) {
  std::vector<float> sums(size_t(rows) * 2 * n);
  std::vector<bf16> gate_up(sums.size()), expected(size_t(rows) * n), actual(expected.size());
  linear_reference(x.data(), rows, w.data(), 2 * n, k, nullptr, sums.data());
  std::transform(sums.begin(), sums.end(), gate_up.begin(), to_bf16);
  swiglu_reference(gate_up.data(), rows, n, expected.data());
  const PackedMatrix packed = pack_matrix(pool, in_groups(w, 1, n, k).data(), 2 * n, k);
  for_each_isa([&](const char* isa) {
    linear_swiglu_cpu(pool, x.data(), rows, packed, actual.data());
    check_same(actual, expected, isa + what);
  });
}

void swiglu_of_a_linear_equals_reference() {
  struct Shape {
    int rows, n, k;
  };
  std::mt19937_64 random(21);
  ThreadPool pool(2);
  for (Operands kind : kAllOperands) {
    for (const Shape& s : {Shape{1, 8, 16}, Shape{3, 24, 40}, Shape{5, 40, 23}, Shape{2, 200, 64}, Shape{70, 64, 48}}) {
      const auto x = draw(kind, size_t(s.rows) * s.k, random), w = draw(kind, size_t(2) * s.n * s.k, random);
      check_swiglu(pool, x, s.rows, w, s.n, s.k,
                   ", operands " + std::to_string(int(kind)) + ", n " + std::to_string(s.n));
    }
  }
}

void swiglu_equals_reference_for_every_gate() {
  // All 65536 gates, infinities and NaNs too: x picks a column of the weights.
  ThreadPool pool(2);
  const int n = 65536, k = 8;
  std::vector<bf16> x(k, to_bf16(0.0f)), w(size_t(2) * n * k, to_bf16(0.0f));
  x[0] = to_bf16(1.0f);
  for (int i = 0; i < n; ++i) {
    w[size_t(i) * k].bits = uint16_t(i);
    w[size_t(n + i) * k] = to_bf16(1.5f);
  }
  check_swiglu(pool, x, 1, w, n, k, ", every gate");
}

void swiglu_is_close_to_its_definition() {
  for (float g : {-20.0f, -3.0f, -0.5f, 0.0f, 0.25f, 1.0f, 8.0f}) {
    const bf16 gate_up[2] = {to_bf16(g), to_bf16(2.0f)};
    bf16 y;
    swiglu_reference(gate_up, 1, 1, &y);
    const double expected = 2.0 * g / (1.0 + std::exp(-double(g)));
    CHECK(std::abs(double(to_float(y)) - expected) <= std::abs(expected) / 256.0);
  }
}

void embedding_reads_the_packed_table() {
  std::mt19937_64 random(22);
  ThreadPool pool(2);
  const int n = 83;
  for (int k : {16, 40, 256}) {
    const auto table = draw(Operands::kAnyBits, size_t(n) * k, random);
    const PackedMatrix packed = pack_matrix(pool, table.data(), n, k);
    std::vector<int32_t> ids(200);
    for (int32_t& id : ids) id = int32_t(random() % n);
    std::vector<bf16> expected(ids.size() * k), actual(expected.size());
    gather_rows(pool, table.data(), ids.data(), int(ids.size()), k, expected.data());
    embedding_cpu(pool, packed, ids.data(), int(ids.size()), actual.data());
    for (size_t i = 0; i < expected.size(); ++i) CHECK_EQ(actual[i].bits, expected[i].bits);
  }
}

}  // namespace

extern const TestTable kMlpTests = {"mlp",
                                    {{"swiglu of a linear equals reference", swiglu_of_a_linear_equals_reference},
                                     {"swiglu equals reference for every gate", swiglu_equals_reference_for_every_gate},
                                     {"swiglu is close to its definition", swiglu_is_close_to_its_definition},
                                     {"embedding reads the packed table", embedding_reads_the_packed_table}}};

}  // namespace detinfer::testing
