#include "kernels/attention/attention.h"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <string>

#include "attention/support.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "tests/native/check.h"
#include "tests/native/isa.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

/// Queries, keys and values of one sequence, and the same keys and values in shuffled pages.
struct Case {
  int heads, kv_heads, dim, page_size, rows, length;
  std::vector<bf16> q, keys, values;  // [rows][heads][dim], [length][kv_heads][dim]
  std::vector<int32_t> pages;
  KvLayout layout;
  std::vector<bf16> paged_keys, paged_values;

  int start() const { return length - rows; }

  void fill_pages(bf16 unwritten, std::mt19937_64& random) {
    layout = KvLayout{kv_heads, dim, page_size};
    pages.resize((length + page_size - 1) / page_size + 2);
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), random);
    paged_keys.assign(pages.size() * layout.page_elements(), unwritten);
    paged_values = paged_keys;
    for (int n = 0; n < length; ++n) {
      const int page = pages[n / page_size], slot = n % page_size;
      for (int h = 0; h < kv_heads; ++h) {
        for (int d = 0; d < dim; ++d) {
          const size_t i = (size_t(n) * kv_heads + h) * dim + d;
          paged_keys[layout.key_offset(page, h, slot, d)] = keys[i];
          paged_values[layout.value_offset(page, h, slot, d)] = values[i];
        }
      }
    }
  }

  std::vector<bf16> reference() const {
    std::vector<bf16> out(q.size());
    std::vector<bf16> head_keys(size_t(length) * dim), head_values(head_keys.size());
    std::vector<float> row(dim);
    for (int h = 0; h < heads; ++h) {
      const int kv = h / (heads / kv_heads);
      for (int n = 0; n < length; ++n) {
        const size_t from = (size_t(n) * kv_heads + kv) * dim;
        std::copy_n(&keys[from], dim, &head_keys[size_t(n) * dim]);
        std::copy_n(&values[from], dim, &head_values[size_t(n) * dim]);
      }
      for (int r = 0; r < rows; ++r) {
        const size_t i = (size_t(r) * heads + h) * dim;
        attention_reference(&q[i], head_keys.data(), head_values.data(), start() + r, dim, row.data());
        std::transform(row.begin(), row.end(), &out[i], to_bf16);
      }
    }
    return out;
  }

  /// @param chunk rows per slice
  std::vector<bf16> fast(ThreadPool& pool, int chunk) const {
    std::vector<AttentionSlice> slices;
    for (int r = 0; r < rows; r += chunk) slices.push_back({r, std::min(chunk, rows - r), start() + r, pages.data()});
    std::vector<bf16> out(q.size());
    attention_cpu(pool, q.data(), heads, paged_keys.data(), paged_values.data(), layout, slices.data(),
                  int(slices.size()), out.data());
    return out;
  }
};

Case draw_case(Operands kind, int max_length, std::mt19937_64& random) {
  Case c;
  c.dim = 16 * int(1 + random() % 8);
  c.kv_heads = 1 + int(random() % 2);
  c.heads = c.kv_heads * int(1 + random() % 4);
  c.page_size = 16 * int(1 + random() % 3);
  c.length = 1 + int(random() % max_length);
  c.rows = 1 + int(random() % std::min(c.length, 40));
  c.q = draw(kind, size_t(c.rows) * c.heads * c.dim, random);
  c.keys = draw(kind, size_t(c.length) * c.kv_heads * c.dim, random);
  c.values = draw(kind, c.keys.size(), random);
  // What a page held before must not matter, be it infinite.
  c.fill_pages(random() % 2 ? bf16{0x7F80} : bf16{0}, random);
  return c;
}

void reference_matches_the_h200() {
  std::ifstream file("tests/fixtures/attention/h200.bin", std::ios::binary);
  CHECK(file.good());
  int32_t header[5];
  file.read(reinterpret_cast<char*>(header), sizeof header);
  const int length = header[0], heads = header[1], dim = header[3], rows = header[4];
  auto read = [&](auto& values) {
    file.read(reinterpret_cast<char*>(values.data()), std::streamsize(values.size() * sizeof(values[0])));
    CHECK(file.good());
  };
  std::vector<int32_t> positions(rows);
  std::vector<bf16> keys(size_t(length) * dim), values(keys.size()), q(size_t(rows) * heads * dim);
  std::vector<float> expected(q.size()), actual(dim);
  read(positions);
  read(keys);
  read(values);
  read(q);
  read(expected);
  // The reference takes a minute for all rows; the fast path, which equals it, checks every one of them below.
  for (int row = 0; row < rows; row += 7) {
    for (int h = 0; h < heads; ++h) {
      const size_t i = (size_t(row) * heads + h) * dim;
      attention_reference(&q[i], keys.data(), values.data(), positions[row], dim, actual.data());
      check_same(actual, std::vector<float>(&expected[i], &expected[i] + dim), "row " + std::to_string(row));
    }
  }
  ThreadPool pool(2);
  std::mt19937_64 random(5);
  for (int row = 0; row < rows; ++row) {
    Case c{};
    c.heads = heads, c.kv_heads = 1, c.dim = dim, c.page_size = 16, c.rows = 1, c.length = positions[row] + 1;
    c.q.assign(&q[size_t(row) * heads * dim], &q[size_t(row) * heads * dim] + heads * dim);
    c.keys = keys;
    c.values = values;
    c.fill_pages(bf16{0}, random);
    const std::vector<bf16> out = c.fast(pool, 1);
    for (size_t i = 0; i < out.size(); ++i) {
      CHECK_EQ(out[i].bits, to_bf16(expected[size_t(row) * heads * dim + i]).bits);
    }
  }
}

void fast_path_equals_reference() {
  std::mt19937_64 random(6);
  ThreadPool pool(2);
  for (Operands kind : {Operands::kNormal, Operands::kSpread, Operands::kWideSpread, Operands::kHalfZeros,
                        Operands::kLargestMantissa, Operands::kFiniteBits, Operands::kAnyBits}) {
    for (int trial = 0; trial < 5; ++trial) {
      const Case c = draw_case(kind, trial == 0 ? 1300 : 300, random);
      const std::vector<bf16> expected = c.reference();
      for_each_isa([&](const char* isa) {
        for (int chunk : {c.rows, 3, 1}) {
          check_same(c.fast(pool, chunk), expected,
                     std::string(isa) + " operands " + std::to_string(int(kind)) + " dim " + std::to_string(c.dim) +
                         " length " + std::to_string(c.length) + " chunk " + std::to_string(chunk));
        }
      });
    }
  }
}

/// The message with which a backend refuses heads, or "" if it has them.
std::string refusal(const std::string& backend, int heads, int kv_heads, int dim, int page_size) {
  try {
    check_attention_backend(backend, {kv_heads, dim, page_size}, heads);
    return "";
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kUnsupported);
    return error.what();
  }
}

void backends_say_what_they_lack() {
  CHECK_EQ(attention_backend_names().size(), size_t(3));
  for (const std::string& backend : attention_backend_names()) {
    for (int dim : {64, 128}) CHECK_EQ(refusal(backend, 32, 8, dim, 128), "");
    CHECK_EQ(refusal(backend, 16, 1, 128, 16), "");
    CHECK(refusal(backend, 17, 1, 128, 16).find("17 query heads over 1 KV heads; at most 16") != std::string::npos);
    CHECK(refusal(backend, 4, 3, 128, 16).find("4 query heads over 3") != std::string::npos);
    CHECK(refusal(backend, 8, 8, 64, 48).find("page size 48 is not 16 times a power of two") != std::string::npos);
    CHECK(refusal(backend, 8, 8, 72, 64).find("attention backend " + backend + ": head_dim 72") != std::string::npos);
    CHECK_EQ(refusal(backend, 8, 8, 48, 64).empty(), backend == "flashinfer");
    CHECK_EQ(refusal(backend, 8, 8, 256, 64).empty(), backend == "flashinfer");
    CHECK(!refusal(backend, 8, 8, 272, 64).empty());
  }
  CHECK_EQ(refusal("fa2", 8, 8, 64, 64), "--attention-backend fa2: on a GPU this version has fa3, flashinfer, triton");
}

}  // namespace

extern const TestTable kAttentionTests = {
    "attention",
    {{"the recorded case of an H200", reference_matches_the_h200},
     {"fast path equals reference", fast_path_equals_reference},
     {"backends say what they lack", backends_say_what_they_lack}}};

}  // namespace detinfer::testing
