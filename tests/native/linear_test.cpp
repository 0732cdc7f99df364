#include "kernels/linear/linear.h"

#include <string>

#include "core/cpu_isa.h"
#include "core/thread_pool.h"
#include "tests/native/check.h"
#include "tests/native/isa.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

void fast_path_equals_reference() {
  std::mt19937_64 random(3);
  ThreadPool pool(2);
  for (Operands kind : kAllOperands) {
    for (int trial = 0; trial < 10; ++trial) {
      // Ragged shapes: outputs that end within a panel, a k that ends within a step, rows left over by every block size.
      const int k = 16 * int(1 + random() % 20) - (trial % 3 == 0 ? int(random() % 15) : 0);
      const int n = 1 + int(random() % 150), rows = 1 + int(random() % 11);
      const auto x = draw(kind, size_t(rows) * k, random), w = draw(kind, size_t(n) * k, random);
      const auto b = draw(Operands::kNormal, n, random);
      const bf16* bias = trial % 2 ? b.data() : nullptr;
      std::vector<float> expected(size_t(rows) * n), actual(expected.size());
      std::vector<bf16> rounded(expected.size()), actual_rounded(expected.size());
      linear_reference(x.data(), rows, w.data(), n, k, bias, expected.data());
      for (size_t i = 0; i < expected.size(); ++i) rounded[i] = to_bf16(expected[i]);
      for_each_isa([&](const char* isa) {
        const PackedMatrix packed = pack_matrix(pool, w.data(), n, k);
        const std::string what = std::string(isa) + " operands " + std::to_string(int(kind)) + " n " +
                                 std::to_string(n) + " k " + std::to_string(k) + " rows " + std::to_string(rows);
        linear_cpu(pool, x.data(), rows, packed, bias, actual.data());
        check_same(actual, expected, what);
        linear_cpu(pool, x.data(), rows, packed, bias, actual_rounded.data());
        check_same(actual_rounded, rounded, what + " in bf16");
      });
    }
  }
}

void rows_do_not_see_each_other() {
  std::mt19937_64 random(4);
  ThreadPool pool(2);
  const int n = 200, k = 512, rows = 133;
  const auto x = draw(Operands::kSpread, size_t(rows) * k, random);
  const auto w = draw(Operands::kNormal, size_t(n) * k, random);
  const PackedMatrix packed = pack_matrix(pool, w.data(), n, k);
  std::vector<float> together(size_t(rows) * n), alone(n);
  linear_cpu(pool, x.data(), rows, packed, nullptr, together.data());
  for (int row = 0; row < rows; ++row) {
    linear_cpu(pool, x.data() + size_t(row) * k, 1, packed, nullptr, alone.data());
    check_same(std::vector<float>(together.begin() + row * n, together.begin() + (row + 1) * n), alone,
               "row " + std::to_string(row));
  }
}

}  // namespace

extern const TestTable kLinearTests = {"linear",
                                       {{"fast path equals reference", fast_path_equals_reference},
                                        {"rows do not see each other", rows_do_not_see_each_other}}};

}  // namespace detinfer::testing
