#include "layers/attention_layer.h"

namespace detinfer {

AttentionLayer::AttentionLayer(const AttentionSpec& spec, const std::string& name, int index)
    : spec_(spec), index_(index) {
  const int64_t q_size = int64_t(spec.heads) * spec.head_dim, kv_size = int64_t(spec.kv_heads) * spec.head_dim;
  qkv_.parts = {linear_tensor(name + ".q_proj.weight", q_size, spec.hidden),
                linear_tensor(name + ".k_proj.weight", kv_size, spec.hidden),
                linear_tensor(name + ".v_proj.weight", kv_size, spec.hidden)};
  output_.parts = {linear_tensor(name + ".o_proj.weight", spec.hidden, q_size)};
  if (spec.qk_norm) {
    q_norm_.spec = norm_tensor(name + ".q_norm.weight", spec.head_dim);
    k_norm_.spec = norm_tensor(name + ".k_norm.weight", spec.head_dim);
  }
}

void AttentionLayer::collect(ParameterList& parameters) {
  parameters.matrices.insert(parameters.matrices.end(), {&qkv_, &output_});
  if (spec_.qk_norm) parameters.vectors.insert(parameters.vectors.end(), {&q_norm_, &k_norm_});
}

void AttentionLayer::declare(Workspace& work) const {
  const int64_t q_size = int64_t(spec_.heads) * spec_.head_dim;
  work.declare(Workspace::kQkv, qkv_.n());
  work.declare(Workspace::kQueries, q_size);
  work.declare(Workspace::kAttended, q_size);
  work.declare(Workspace::kDelta, spec_.hidden);
}

bf16* AttentionLayer::forward(Step& step, const bf16* x) const {
  const int rows = step.batch.rows;
  bf16* const qkv = step.buffer(Workspace::kQkv);
  step.ops.linear(x, rows, *qkv_.value, qkv);

  AttentionArgs attention;
  RopeArgs& rope = attention.rope;
  rope.qkv = qkv;
  rope.rows = rows;
  rope.heads = spec_.heads;
  rope.positions = step.batch.positions;
  rope.cos = step.rope.cos.data();
  rope.sin = step.rope.sin.data();
  rope.q_norm = q_norm_.value.data();
  rope.k_norm = k_norm_.value.data();
  rope.eps = spec_.norm_eps;
  rope.q = step.buffer(Workspace::kQueries);
  rope.keys = step.cache.keys(index_);
  rope.values = step.cache.values(index_);
  rope.layout = step.cache.layout();
  rope.slots = step.batch.slots;
  attention.attended = step.buffer(Workspace::kAttended);
  attention.projection = output_.value.get();
  attention.out = step.buffer(Workspace::kDelta);
  step.ops.attention(attention);
  return attention.out;
}

}  // namespace detinfer
