// The k16 step against the vectors recorded on an H200 (tests/fixtures/mma16/README.md).
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/mma16/mma16.h"
#include "tests/native/check.h"

namespace detinfer::testing {
namespace {

constexpr int kTrials = 24, kRows = 64, kColumns = 8;

template <class T>
std::vector<T> read(std::ifstream& file, size_t count) {
  std::vector<T> values(count);
  file.read(reinterpret_cast<char*>(values.data()), std::streamsize(count * sizeof(T)));
  CHECK(file.good());
  return values;
}

void matches_the_h200() {
  for (const char* name : {"normal", "spread-3", "spread-8", "half-zeros", "zeros-beside-huge", "subnormal-operands",
                           "subnormal-results", "overflow", "inf-nan"}) {
    const std::string path = std::string("tests/fixtures/mma16/") + name + ".bin";
    std::ifstream file(path, std::ios::binary);
    CHECK_MESSAGE(file.good(), "cannot read " << path);
    const auto a = read<bf16>(file, size_t(kTrials) * kRows * 16);
    const auto b = read<bf16>(file, size_t(kTrials) * kColumns * 16);
    const auto c = read<uint32_t>(file, size_t(kTrials) * kRows * kColumns);
    const auto d = read<uint32_t>(file, size_t(kTrials) * kRows * kColumns);
    for (int t = 0; t < kTrials; ++t) {
      for (int row = 0; row < kRows; ++row) {
        for (int column = 0; column < kColumns; ++column) {
          const size_t i = (size_t(t) * kRows + row) * kColumns + column;
          const float result = mma16(&a[(size_t(t) * kRows + row) * 16], &b[(size_t(t) * kColumns + column) * 16], 1,
                                     bits_float(c[i]));
          CHECK_MESSAGE(float_bits(result) == d[i], name << " trial " << t << " row " << row << " column " << column
                                                         << ": " << std::hex << float_bits(result) << ", recorded "
                                                         << d[i]);
        }
      }
    }
  }
}

/// 2^-149 - 2^-160 is less than the smallest float, but the second product lies below the bits that a step keeps.
void tiny_products_are_cut() {
  const auto power = [](int exponent) { return to_bf16(std::ldexp(1.0f, exponent)); };
  bf16 a[16] = {power(-75), to_bf16(-std::ldexp(1.0f, -80))}, b[16] = {power(-74), power(-80)};
  CHECK_EQ(float_bits(mma16(a, b, 1, 0.0f)), 1u);
  // One of 2^-158 is kept.
  a[1] = to_bf16(-std::ldexp(1.0f, -78));
  CHECK_EQ(float_bits(mma16(a, b, 1, 0.0f)), 0u);
  // What is cut to nothing is +0, also from below.
  a[0] = power(-80);
  CHECK_EQ(float_bits(mma16(a, b, 1, 0.0f)), 0u);
}

}  // namespace

extern const TestTable kMma16Tests = {"mma16",
                                      {{"matches the vectors of an H200", matches_the_h200},
                                       {"cuts tiny products", tiny_products_are_cut}}};

}  // namespace detinfer::testing
