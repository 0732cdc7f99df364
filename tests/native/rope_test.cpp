#include "kernels/rope/rope.h"

#include <algorithm>
#include <numeric>

#include "core/thread_pool.h"
#include "kernels/rope/rope_table.h"
#include "tests/native/isa.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

struct Case {
  int heads, kv_heads, head_dim, page_size;
  bool norm;
};

void fast_path_equals_reference() {
  std::mt19937_64 random(31);
  ThreadPool pool(2);
  const int pages = 4, positions = 48;
  for (const Case& c : {Case{4, 2, 128, 16, true}, Case{6, 3, 64, 32, false}, Case{1, 1, 16, 16, true}}) {
    for (Operands kind : {Operands::kNormal, Operands::kSpread, Operands::kFiniteBits}) {
      const std::vector<double> frequencies = rope_frequencies(RopeSpec{}, c.head_dim);
      std::vector<float> cos(positions * frequencies.size()), sin(cos.size());
      fill_rope_tables(pool, frequencies, positions, cos.data(), sin.data());
      std::vector<int64_t> slots(pages * c.page_size);
      std::iota(slots.begin(), slots.end(), 0);
      std::shuffle(slots.begin(), slots.end(), random);
      std::vector<int32_t> row_positions(23);
      for (int32_t& position : row_positions) position = int32_t(random() % positions);
      const auto qkv = draw(kind, row_positions.size() * (c.heads + 2 * c.kv_heads) * c.head_dim, random);
      const auto q_norm = draw(Operands::kNormal, c.head_dim, random);
      const auto k_norm = draw(Operands::kNormal, c.head_dim, random);

      RopeArgs args;
      args.qkv = qkv.data();
      args.rows = int(row_positions.size());
      args.heads = c.heads;
      args.positions = row_positions.data();
      args.cos = cos.data();
      args.sin = sin.data();
      args.q_norm = c.norm ? q_norm.data() : nullptr;
      args.k_norm = c.norm ? k_norm.data() : nullptr;
      args.eps = 1e-6f;
      args.layout.kv_heads = c.kv_heads;
      args.layout.head_dim = c.head_dim;
      args.layout.page_size = c.page_size;
      args.slots = slots.data();
      const size_t pool_size = size_t(pages) * args.layout.page_elements();
      std::vector<bf16> q(row_positions.size() * c.heads * c.head_dim), keys(pool_size), values(pool_size);
      args.q = q.data();
      args.keys = keys.data();
      args.values = values.data();
      rope_reference(args);
      for_each_isa([&](const char* isa) {
        std::vector<bf16> fast_q(q.size()), fast_keys(pool_size), fast_values(pool_size);
        args.q = fast_q.data();
        args.keys = fast_keys.data();
        args.values = fast_values.data();
        rope_cpu(pool, args);
        check_same(fast_q, q, std::string(isa) + " q");
        check_same(fast_keys, keys, std::string(isa) + " keys");
        check_same(fast_values, values, std::string(isa) + " values");
      });
    }
  }
}

void tables_match_their_definition() {
  ThreadPool pool(2);
  RopeSpec spec;
  spec.theta = 1e6;
  const std::vector<double> frequencies = rope_frequencies(spec, 128);
  std::vector<float> cos(2048 * 64), sin(cos.size());
  fill_rope_tables(pool, frequencies, 2048, cos.data(), sin.data());
  for (int i = 0; i < 64; ++i) {
    const long double frequency = std::pow(1e6L, -2.0L * i / 128.0L);
    CHECK(std::abs(frequencies[i] / double(frequency) - 1.0) < 1e-14);
    for (int position : {0, 1, 77, 2047}) {
      CHECK(std::abs(cos[position * 64 + i] - double(std::cos(position * frequency))) < 6.1e-8);
      CHECK(std::abs(sin[position * 64 + i] - double(std::sin(position * frequency))) < 6.1e-8);
    }
  }
}

void llama3_scaling_keeps_stretches_and_interpolates() {
  RopeSpec plain;
  plain.theta = 500000.0;
  RopeSpec scaled = plain;
  scaled.type = RopeType::kLlama3;
  scaled.factor = 8.0;
  scaled.original_context = 8192.0;
  const auto before = rope_frequencies(plain, 128), after = rope_frequencies(scaled, 128);
  int kept = 0, stretched = 0, between = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const double wavelength = 2.0 * 3.14159265358979323846 / before[i];
    if (wavelength < 8192.0 / 4.0) {
      CHECK_EQ(after[i], before[i]);
      ++kept;
    } else if (wavelength > 8192.0) {
      CHECK_EQ(after[i], before[i] / 8.0);
      ++stretched;
    } else {
      CHECK(after[i] <= before[i] && after[i] >= before[i] / 8.0);
      ++between;
    }
  }
  CHECK(kept > 0 && stretched > 0 && between > 0);
}

}  // namespace

extern const TestTable kRopeTests = {
    "rope",
    {{"fast path equals reference", fast_path_equals_reference},
     {"tables match their definition", tables_match_their_definition},
     {"llama3 scaling keeps, stretches and interpolates", llama3_scaling_keeps_stretches_and_interpolates}}};

}  // namespace detinfer::testing
