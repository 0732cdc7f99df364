#include "kernels/norm/rms_norm.h"

#include "core/thread_pool.h"
#include "tests/native/isa.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

constexpr int kLengths[] = {1, 7, 8, 9, 16, 64, 100, 128, 1000, 1024, 4097};

void fast_path_equals_reference() {
  std::mt19937_64 random(11);
  ThreadPool pool(2);
  for (Operands kind : kAllOperands) {
    for (int n : kLengths) {
      const int rows = 5;
      const auto x = draw(kind, size_t(rows) * n, random), w = draw(Operands::kNormal, n, random);
      std::vector<bf16> expected(x.size()), actual(x.size());
      rms_norm_reference(x.data(), rows, n, w.data(), 1e-6f, expected.data());
      for_each_isa([&](const char* isa) {
        rms_norm_cpu(pool, x.data(), rows, n, w.data(), 1e-6f, actual.data());
        check_same(actual, expected, std::string(isa) + " n " + std::to_string(n));
      });
    }
  }
}

void fused_add_equals_its_parts() {
  std::mt19937_64 random(12);
  ThreadPool pool(2);
  for (Operands kind : {Operands::kNormal, Operands::kSpread, Operands::kFiniteBits}) {
    for (int n : kLengths) {
      const int rows = 3;
      const auto x = draw(kind, size_t(rows) * n, random), delta = draw(kind, x.size(), random);
      const auto w = draw(Operands::kNormal, n, random);
      std::vector<bf16> sum(x.size()), expected(x.size()), actual(x.size());
      for (size_t i = 0; i < x.size(); ++i) sum[i] = to_bf16(to_float(x[i]) + to_float(delta[i]));
      rms_norm_reference(sum.data(), rows, n, w.data(), 1e-5f, expected.data());
      for_each_isa([&](const char* isa) {
        std::vector<bf16> residual = x;
        add_rms_norm_cpu(pool, residual.data(), delta.data(), rows, n, w.data(), 1e-5f, actual.data());
        check_same(residual, sum, std::string(isa) + " residual, n " + std::to_string(n));
        check_same(actual, expected, std::string(isa) + " norm, n " + std::to_string(n));
      });
    }
  }
}

void sums_in_the_order_of_the_contract() {
  // In groups of 8 the 1s meet before they meet 2^24, next to which a single 1 would vanish.
  std::vector<bf16> x(16, to_bf16(1.0f)), w(16, to_bf16(1.0f)), y(16);
  x[0] = to_bf16(4096.0f);
  rms_norm_reference(x.data(), 1, 16, w.data(), 0.0f, y.data());
  const float first = 16777216.0f;  // 4096² + 7 · 1, each 1 lost to rounding to even
  const float r = 1.0f / std::sqrt((first + 8.0f) / 16.0f);
  CHECK_EQ(y[1].bits, to_bf16(r).bits);
}

}  // namespace

extern const TestTable kRmsNormTests = {"rms_norm",
                                        {{"fast path equals reference", fast_path_equals_reference},
                                         {"fused add equals its parts", fused_add_equals_its_parts},
                                         {"sums in the order of the contract", sums_in_the_order_of_the_contract}}};

}  // namespace detinfer::testing
