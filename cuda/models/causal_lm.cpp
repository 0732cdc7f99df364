#include "models/causal_lm.h"

#include <cmath>

#include "core/error.h"
#include "kernels/norm/rms_norm.h"
#include "layers/mlp_layer.h"
#include "models/common_config.h"

namespace detinfer {
namespace {

/// Deviation of the logits that dummy weights give.
constexpr double kDummyLogits = 2.4;
/// Far above any model, and few enough to be declared at once.
constexpr int kMaxLayers = 1024;

void check_shape(int layers, const AttentionSpec& spec) {
  const auto refuse = [](const std::string& what) { throw Error(ErrorCode::kUnsupported, "config.json: " + what); };
  if (layers > kMaxLayers) refuse("num_hidden_layers above " + std::to_string(kMaxLayers) + " is not supported");
  if (spec.heads % spec.kv_heads != 0) {
    throw Error(ErrorCode::kInvalidModel, "config.json: num_attention_heads must be a multiple of num_key_value_heads");
  }
  if (spec.head_dim < 16 || spec.head_dim % 16 != 0 || spec.head_dim > kMaxHeadDim) {
    refuse("head_dim " + std::to_string(spec.head_dim) + " is not supported; it must be a multiple of 16 up to " +
           std::to_string(kMaxHeadDim));
  }
  if (spec.hidden > kMaxNormLength) {
    refuse("hidden_size above " + std::to_string(kMaxNormLength) + " is not supported");
  }
}

std::unique_ptr<FeedForward> make_feed_forward(const CausalLmSpec& spec, const std::string& name, int layer) {
  if (!spec.sparse_layers.empty() && spec.sparse_layers[layer]) return std::make_unique<MoeLayer>(spec.moe, name);
  return std::make_unique<MlpLayer>(spec.attention.hidden, spec.intermediate, name);
}

}  // namespace

CausalLmSpec causal_lm_config(const ConfigMap& config, int default_head_dim) {
  refuse_unsupported(config);
  CausalLmSpec spec;
  spec.vocab_size = config.positive_int("vocab_size");
  spec.layers = config.positive_int("num_hidden_layers");
  spec.intermediate = intermediate_size(config, "intermediate_size");
  spec.max_positions = config.positive_int("max_position_embeddings");
  spec.tied_embeddings = config.flag("tie_word_embeddings", false);
  spec.norm_eps = float(config.positive_number("rms_norm_eps"));
  spec.rope = rope_config(config);
  spec.attention.hidden = config.positive_int("hidden_size");
  spec.attention.heads = config.positive_int("num_attention_heads");
  spec.attention.kv_heads = config.positive_int("num_key_value_heads", spec.attention.heads);
  spec.attention.head_dim = config.positive_int("head_dim", default_head_dim);
  spec.attention.norm_eps = spec.norm_eps;
  check_shape(spec.layers, spec.attention);
  return spec;
}

CausalLm::CausalLm(const CausalLmSpec& spec) : spec_(spec) {
  const int hidden = spec.attention.hidden;
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  // Dummy weights: a normed hidden state has variance 1, so this deviation of the head gives the wanted logits. A tied
  // table is small as an embedding, which the first norm makes up for.
  const double head_deviation = kDummyLogits / std::sqrt(double(hidden));
  embedding_.parts = {{embedding, {spec.vocab_size, hidden}, 0.0, spec.tied_embeddings ? head_deviation : 1.0}};
  if (!spec.tied_embeddings) head_.parts = {{head, {spec.vocab_size, hidden}, 0.0, head_deviation}};
  layers_.reserve(spec.layers);
  for (int i = 0; i < spec.layers; ++i) {
    const std::string name = "model.layers." + std::to_string(i);
    layers_.push_back({{norm_tensor(name + ".input_layernorm.weight", hidden), {}},
                       AttentionLayer(spec.attention, name + ".self_attn", i),
                       {norm_tensor(name + ".post_attention_layernorm.weight", hidden), {}},
                       make_feed_forward(spec, name + ".mlp", i)});
  }
  last_norm_.spec = norm_tensor("model.norm.weight", hidden);
}

KvLayout CausalLm::kv_layout() const {
  KvLayout layout;
  layout.kv_heads = spec_.attention.kv_heads;
  layout.head_dim = spec_.attention.head_dim;
  return layout;
}

void CausalLm::collect(ParameterList& parameters) {
  parameters.matrices.push_back(&embedding_);
  for (Layer& layer : layers_) {
    parameters.vectors.push_back(&layer.input_norm);
    layer.attention.collect(parameters);
    parameters.vectors.push_back(&layer.post_norm);
    layer.feed_forward->collect(parameters);
  }
  parameters.vectors.push_back(&last_norm_);
  if (!spec_.tied_embeddings) parameters.matrices.push_back(&head_);
}

int64_t CausalLm::unread_bytes() const {
  // Of a table that is not the head too, a token reads one row.
  int64_t bytes = spec_.tied_embeddings ? 0 : embedding_.value->bytes();
  for (const Layer& layer : layers_) bytes += layer.feed_forward->unread_bytes();
  return bytes;
}

void CausalLm::declare(Workspace& work) const {
  using Buffer = Workspace::Buffer;
  for (Buffer buffer : {Workspace::kHidden, Workspace::kNormed, Workspace::kPicked, Workspace::kPickedDelta,
                        Workspace::kPickedNormed}) {
    work.declare(buffer, spec_.attention.hidden);
  }
  for (const Layer& layer : layers_) {
    layer.attention.declare(work);
    layer.feed_forward->declare(work);
  }
}

void CausalLm::forward(Step& step) const {
  const int rows = step.batch.rows, hidden = spec_.attention.hidden;
  bf16* const residual = step.buffer(Workspace::kHidden);
  bf16* const x = step.buffer(Workspace::kNormed);
  step.ops.embedding(*embedding_.value, step.batch.tokens, rows, step.batch.drawn, residual);
  const bf16* delta = nullptr;
  for (const Layer& layer : layers_) {
    const bf16* input_norm = layer.input_norm.value.data();
    if (delta) {
      step.ops.add_rms_norm(residual, delta, rows, hidden, input_norm, spec_.norm_eps, x);
    } else {
      step.ops.rms_norm(residual, rows, hidden, input_norm, spec_.norm_eps, x);
    }
    delta = layer.attention.forward(step, x);
    step.ops.add_rms_norm(residual, delta, rows, hidden, layer.post_norm.value.data(), spec_.norm_eps, x);
    delta = layer.feed_forward->forward(step, x);
  }
}

void CausalLm::logits(Step& step, const int32_t* rows, int count, float* out) const {
  // The last residual sum is made only for the rows that are wanted.
  const int hidden = spec_.attention.hidden;
  bf16* const residual = step.buffer(Workspace::kPicked);
  bf16* const delta = step.buffer(Workspace::kPickedDelta);
  bf16* const x = step.buffer(Workspace::kPickedNormed);
  step.ops.gather_rows(step.buffer(Workspace::kHidden), rows, count, hidden, residual);
  step.ops.gather_rows(step.buffer(Workspace::kDelta), rows, count, hidden, delta);
  step.ops.add_rms_norm(residual, delta, count, hidden, last_norm_.value.data(), spec_.norm_eps, x);
  step.ops.linear(x, count, head(), out);
}

}  // namespace detinfer
