// A whole mixture of experts with dummy weights: what its routers do.
#include <algorithm>
#include <random>

#include "core/thread_pool.h"
#include "device/cpu_ops.h"
#include "engine/dummy_weights.h"
#include "engine/loader.h"
#include "kernels/rope/rope_table.h"
#include "models/model.h"
#include "tests/native/check.h"

namespace detinfer::testing {
namespace {

constexpr int kVocab = 1000, kExperts = 128, kTopK = 8, kLayers = 3, kRows = 256, kPageSize = 64;

ConfigMap moe_config() {
  ConfigMap config;
  config.set("architectures.0", std::string("Qwen3MoeForCausalLM"));
  config.set("norm_topk_prob", true);
  const std::pair<const char*, double> numbers[] = {
      {"vocab_size", kVocab},       {"num_hidden_layers", kLayers},   {"intermediate_size", 48},
      {"hidden_size", 256},         {"max_position_embeddings", 512}, {"num_attention_heads", 4},
      {"num_key_value_heads", 2},   {"head_dim", 64},                 {"rms_norm_eps", 1e-6},
      {"num_experts", kExperts},    {"num_experts_per_tok", kTopK},   {"moe_intermediate_size", 32}};
  for (const auto& [key, value] : numbers) config.set(key, value);
  return config;
}

/// How many of kRows rows of a random prompt choose each expert of the last layer.
std::vector<int> choices_of_last_layer(const ConfigMap& config) {
  ThreadPool pool(2);
  const auto ops = make_cpu_ops(pool);
  const auto model = make_model(config);
  ParameterList parameters;
  model->collect(parameters);
  load_parameters(parameters, *make_dummy_weights(), pool, *ops, [](int64_t, int64_t) {});

  PassShape shape;
  shape.limits = {kRows, 1, 8, 1};
  shape.vocab = kVocab;
  shape.heads = model->heads();
  shape.kv = model->kv_layout();
  shape.kv.page_size = kPageSize;
  ops->prepare(shape);
  Workspace work;
  model->declare(work);
  work.allocate(*ops, shape.limits);
  KvCache cache(*ops, shape.kv, kLayers, kRows / kPageSize);
  const size_t angles = size_t(kRows) * shape.kv.head_dim / 2;
  RopeTables rope{DeviceArray<float>(*ops, angles), DeviceArray<float>(*ops, angles)};
  fill_rope_tables(pool, rope_frequencies(model->rope(), shape.kv.head_dim), kRows, rope.cos.data(), rope.sin.data());

  std::mt19937_64 random(41);
  std::vector<int32_t> tokens(kRows), positions(kRows), pages(kRows / kPageSize);
  std::vector<int64_t> slots(kRows);
  for (int i = 0; i < kRows; ++i) {
    tokens[i] = int32_t(random() % kVocab);
    positions[i] = i;
    slots[i] = i;
  }
  for (int i = 0; i < int(pages.size()); ++i) pages[i] = i;
  const AttentionSlice slice{0, kRows, 0, pages.data()};
  ops->plan_attention(&slice, 1);
  const Batch batch{kRows, tokens.data(), nullptr, positions.data(), slots.data()};
  Step step{*ops, work, cache, rope, batch};
  model->forward(step);

  std::vector<int> counts(kExperts);
  const ExpertRoutes routes = work.routes();
  for (int expert = 0; expert < kExperts; ++expert) counts[expert] = routes.first[expert + 1] - routes.first[expert];
  return counts;
}

void dummy_routers_use_all_experts() {
  for (int layers = 1; layers <= kLayers; ++layers) {
    ConfigMap config = moe_config();
    config.set("num_hidden_layers", double(layers));
    const std::vector<int> counts = choices_of_last_layer(config);
    const int mean = kRows * kTopK / kExperts;
    const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
    CHECK_MESSAGE(*least > 0 && *most < 4 * mean,
                  "layer " << layers - 1 << ": " << *least << " to " << *most << " rows, " << mean << " on average");
  }
}

}  // namespace

extern const TestTable kMoeModelTests = {"moe model",
                                         {{"dummy routers use all experts", dummy_routers_use_all_experts}}};

}  // namespace detinfer::testing
