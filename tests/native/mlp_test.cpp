#include "core/thread_pool.h"
#include "kernels/embedding/embedding.h"
#include "kernels/mlp/swiglu.h"
#include "tests/native/isa.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

void swiglu_equals_reference() {
  std::mt19937_64 random(21);
  ThreadPool pool(2);
  for (Operands kind : kAllOperands) {
    for (int n : {1, 3, 16, 31, 256, 1000}) {
      const int rows = 4;
      const auto gate_up = draw(kind, size_t(rows) * 2 * n, random);
      std::vector<bf16> expected(size_t(rows) * n), actual(expected.size());
      swiglu_reference(gate_up.data(), rows, n, expected.data());
      for_each_isa([&](const char* isa) {
        swiglu_cpu(pool, gate_up.data(), rows, n, actual.data());
        check_same(actual, expected, std::string(isa) + " n " + std::to_string(n));
      });
    }
  }
}

void swiglu_equals_reference_for_every_gate() {
  // All 65536 gates, infinities and NaNs too.
  ThreadPool pool(2);
  const int n = 65536;
  std::vector<bf16> gate_up(2 * n, to_bf16(1.5f)), expected(n), actual(n);
  for (int i = 0; i < n; ++i) gate_up[i].bits = uint16_t(i);
  swiglu_reference(gate_up.data(), 1, n, expected.data());
  for_each_isa([&](const char* isa) {
    swiglu_cpu(pool, gate_up.data(), 1, n, actual.data());
    check_same(actual, expected, isa);
  });
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
                                    {{"swiglu equals reference", swiglu_equals_reference},
                                     {"swiglu equals reference for every gate", swiglu_equals_reference_for_every_gate},
                                     {"swiglu is close to its definition", swiglu_is_close_to_its_definition},
                                     {"embedding reads the packed table", embedding_reads_the_packed_table}}};

}  // namespace detinfer::testing
