// The graph that decoders share: embedding, pre-norm layers of attention and an MLP or experts on a residual stream, a
// last norm and an output head, which may be the embedding table.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "layers/attention_layer.h"
#include "layers/feed_forward.h"
#include "layers/moe_layer.h"
#include "models/model.h"

namespace detinfer {

struct CausalLmSpec {
  int vocab_size = 0;
  int layers = 0;
  /// Of an MLP.
  int intermediate = 0;
  int max_positions = 0;
  bool tied_embeddings = false;
  float norm_eps = 0.0f;
  AttentionSpec attention;
  RopeSpec rope;
  /// Layers that have experts instead of an MLP; empty: none.
  std::vector<bool> sparse_layers;
  MoeSpec moe;
};

/// Reads the keys that decoders share; `head_dim` falls back to the given value. @throws Error
CausalLmSpec causal_lm_config(const ConfigMap& config, int default_head_dim);

class CausalLm : public Model {
 public:
  explicit CausalLm(const CausalLmSpec& spec);

  int vocab_size() const override { return spec_.vocab_size; }
  int max_positions() const override { return spec_.max_positions; }
  int layers() const override { return spec_.layers; }
  int heads() const override { return spec_.attention.heads; }
  KvLayout kv_layout() const override;
  const RopeSpec& rope() const override { return spec_.rope; }
  void collect(ParameterList& parameters) override;
  int64_t unread_bytes() const override;
  void declare(Workspace& work) const override;
  void forward(Step& step) const override;
  void logits(Step& step, const int32_t* rows, int count, float* out) const override;

 private:
  struct Layer {
    VectorParameter input_norm;
    AttentionLayer attention;
    VectorParameter post_norm;
    std::unique_ptr<FeedForward> feed_forward;
  };

  const Matrix& head() const { return *(spec_.tied_embeddings ? embedding_ : head_).value; }

  CausalLmSpec spec_;
  MatrixParameter embedding_;
  std::vector<Layer> layers_;
  VectorParameter last_norm_;
  MatrixParameter head_;
};

}  // namespace detinfer
