#include "engine/dummy_weights.h"

#include <cmath>

#include "core/config_map.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "engine/loader.h"
#include "engine/slice.h"
#include "device/cpu_ops.h"
#include "models/model.h"
#include "tests/native/gate_up.h"
#include "tests/native/isa.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

std::vector<bf16> read(const WeightSource& source, ThreadPool& pool, const TensorSpec& spec) {
  std::vector<bf16> values(spec.elements());
  source.read(pool, spec, {values.data(), spec.elements(), 0});
  return values;
}

void dummy_weights_follow_their_recipe() {
  const auto source = make_dummy_weights();
  // An odd number of elements, and more than one piece of work.
  const TensorSpec spec{"model.layers.3.mlp.up_proj.weight", {2621, 1021}, 0.5, 0.25};
  const float scale = float(0.25 * std::sqrt(3.0) / 65535.0);
  for_each_isa([&](const char* isa) {
    for (int threads : {1, 3}) {
      ThreadPool pool(threads);
      const std::vector<bf16> values = read(*source, pool, spec);
      for (int64_t i = 0; i < spec.elements(); ++i) {
        const uint64_t word = mix64(dummy_hash(spec.name) + uint64_t(i / 4));
        const int u = int(word >> (16 * (i % 4)) & 0xFFFF);
        CHECK_MESSAGE(values[i].bits == to_bf16(0.5f + float(2 * u - 65535) * scale).bits, isa << " element " << i);
      }
    }
  });
}

void dummy_weights_have_the_declared_distribution() {
  ThreadPool pool(2);
  const auto source = make_dummy_weights();
  const auto a = read(*source, pool, {"a", {1000, 1000}, 1.0, 0.05});
  const auto b = read(*source, pool, {"b", {1000, 1000}, 1.0, 0.05});
  double sum = 0.0, squares = 0.0;
  int equal = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += to_float(a[i]);
    squares += std::pow(to_float(a[i]) - 1.0, 2);
    equal += a[i].bits == b[i].bits;
  }
  CHECK(std::abs(sum / 1e6 - 1.0) < 1e-3);
  CHECK(std::abs(std::sqrt(squares / 1e6) - 0.05) < 1e-3);
  CHECK(equal < 100000);
}

void fnv_hash_is_the_published_one() {
  CHECK_EQ(dummy_hash(""), 0xCBF29CE484222325ull);
  CHECK_EQ(dummy_hash("foobar"), 0x85944171F73967E8ull);
}

ConfigMap small_config() {
  ConfigMap config;
  config.set("architectures.0", std::string("LlamaForCausalLM"));
  const std::pair<const char*, double> numbers[] = {
      {"vocab_size", 100}, {"num_hidden_layers", 2}, {"intermediate_size", 48}, {"max_position_embeddings", 64},
      {"hidden_size", 64}, {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"rms_norm_eps", 1e-5}};
  for (const auto& [key, value] : numbers) config.set(key, value);
  return config;
}

ConfigMap small_moe_config() {
  ConfigMap config = small_config();
  config.set("architectures.0", std::string("Qwen3MoeForCausalLM"));
  const std::pair<const char*, double> numbers[] = {
      {"num_experts", 3}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 24}, {"head_dim", 16}};
  for (const auto& [key, value] : numbers) config.set(key, value);
  return config;
}

void check_fused_matrices(const ConfigMap& config) {
  ThreadPool pool(2);
  const auto ops = make_cpu_ops(pool);
  const auto model = make_model(config);
  const auto source = make_dummy_weights();
  ParameterList parameters;
  model->collect(parameters);
  int64_t done = 0, total = -1;
  load_parameters(parameters, *source, pool, *ops, [&](int64_t d, int64_t t) {
    CHECK(d >= done);
    done = d;
    total = t;
  });
  CHECK_EQ(done, total);
  CHECK_EQ(total, weight_bytes(parameters));
  // A unit vector picks a column of the matrix: q, k and v rows must lie one after another, gates and ups in groups.
  for (const MatrixParameter* matrix : parameters.matrices) {
    std::vector<bf16> expected;
    for (const TensorSpec& part : matrix->parts) {
      const std::vector<bf16> values = read(*source, pool, part);
      expected.insert(expected.end(), values.begin(), values.end());
    }
    CHECK_EQ(int64_t(expected.size()), int64_t(matrix->n()) * matrix->k());
    if (matrix->group != 0) {
      const int pairs = int(matrix->parts.size()) / 2;
      expected = in_groups(expected, pairs, matrix->n() / pairs / 2, matrix->k());
    }
    for (int column : {0, 5, matrix->k() - 1}) {
      std::vector<bf16> x(matrix->k(), to_bf16(0.0f)), y(matrix->n());
      x[column] = to_bf16(1.0f);
      ops->linear(x.data(), 1, *matrix->value, y.data());
      for (int row = 0; row < matrix->n(); ++row) {
        CHECK_EQ(y[row].bits, expected[int64_t(row) * matrix->k() + column].bits);
      }
    }
  }
}

void fused_matrices_hold_their_parts() {
  check_fused_matrices(small_config());
  check_fused_matrices(small_moe_config());
}

/// More than a thread reads at a time: a tensor in one run, and in runs.
void tensors_are_read_into_runs() {
  ThreadPool pool(2);
  const auto source = make_dummy_weights();
  const TensorSpec spec{"wide", {16, 70000}, 0.0, 1.0};
  const std::vector<bf16> whole = read(*source, pool, spec);
  for (int rows : {1, 8}) {
    const int64_t run = rows * spec.shape[1], stride = run + 12;
    std::vector<bf16> values(size_t(spec.shape[0] / rows * stride), bf16{0x7FC1});
    source->read(pool, spec, {values.data(), run, stride});
    for (int64_t i = 0; i < int64_t(values.size()); ++i) {
      const int64_t at = i % stride;
      CHECK_EQ(values[i].bits, at < run ? whole[i / stride * run + at].bits : 0x7FC1);
    }
  }
}

void config_errors_name_the_key() {
  ConfigMap config;
  config.set("a.b", 1.5);
  config.set("flag", std::string("yes"));
  CHECK(config.has("a") && config.has("a.b") && !config.has("a.") && !config.has("b"));
  CHECK_EQ(config.positive_int("missing", 7), 7);
  CHECK_EQ(MESSAGE_OF(Error, config.positive_int("a.b")),
           std::string("config.json: a.b is 1.5; it must be a positive integer"));
  CHECK_EQ(MESSAGE_OF(Error, config.text("none")), std::string("config.json: none is missing; it must be a string"));
  CHECK_EQ(MESSAGE_OF(Error, config.flag("flag", false)),
           std::string("config.json: flag is \"yes\"; it must be true or false"));
  // Not what is taken for a key that is missing.
  CHECK_EQ(MESSAGE_OF(Error, config.positive_int("a", 7)),
           std::string("config.json: a is a list or an object; it must be a positive integer"));
  CHECK_EQ(MESSAGE_OF(Error, config.flag("a", false)),
           std::string("config.json: a is a list or an object; it must be true or false"));
}

/// Bits of a mask's last word that stand for no token allow nothing.
void masks_must_allow_a_token() {
  const int32_t token = 1, page = 0;
  ForwardSlice slice;
  slice.tokens = &token;
  slice.token_count = 1;
  slice.pages = &page;
  slice.page_count = 1;
  SliceLimits limits;
  limits.context_length = limits.page_size = 16;
  limits.pages = 1;
  for (int vocab : {5, 32, 33, 64, 100}) {
    limits.vocab_size = vocab;
    std::vector<uint32_t> mask((vocab + 31) / 32);
    SampleSpec& sample = slice.sample.emplace();
    sample.args.allowed = mask.data();
    sample.allowed_words = int(mask.size());
    for (int bit = 0; bit < 32 * int(mask.size()); ++bit) {
      mask[bit / 32] = uint32_t(1) << bit % 32;
      if (bit < vocab) {
        check_slices({slice}, limits);
      } else {
        CHECK_EQ(MESSAGE_OF(Error, check_slices({slice}, limits)),
                 std::string("slice 0 has a mask that allows no token"));
      }
      mask[bit / 32] = 0;
    }
  }
}

}  // namespace

extern const TestTable kEngineTests = {
    "engine",
    {{"masks must allow a token", masks_must_allow_a_token},
     {"dummy weights follow their recipe", dummy_weights_follow_their_recipe},
     {"dummy weights have the declared distribution", dummy_weights_have_the_declared_distribution},
     {"fnv hash is the published one", fnv_hash_is_the_published_one},
     {"fused matrices hold their parts", fused_matrices_hold_their_parts},
     {"tensors are read into runs", tensors_are_read_into_runs},
     {"config errors name the key", config_errors_name_the_key}}};

}  // namespace detinfer::testing
