// What the engine knows of a model.
#pragma once

#include <memory>
#include <string>

#include "core/config_map.h"
#include "kernels/rope/rope_table.h"
#include "layers/parameter.h"
#include "layers/step.h"

namespace detinfer {

class Model {
 public:
  virtual ~Model() = default;

  virtual int vocab_size() const = 0;
  /// Longest context that the model was made for.
  virtual int max_positions() const = 0;
  virtual int layers() const = 0;
  /// Query heads.
  virtual int heads() const = 0;
  /// Keys and values of one layer, page_size unset.
  virtual KvLayout kv_layout() const = 0;
  virtual const RopeSpec& rope() const = 0;

  virtual void collect(ParameterList& parameters) = 0;
  /// Bytes of the loaded weights that a decoded token does not read.
  virtual int64_t unread_bytes() const = 0;

  /// Declares the buffers that forward() and logits() use.
  virtual void declare(Workspace& work) const = 0;
  /// Runs the batch through all layers; keys and values go to the cache, the last hidden states stay in the workspace.
  virtual void forward(Step& step) const = 0;
  /// Logits of some rows of the last forward().
  /// @param rows [count], in the device's memory @param out [count][vocab_size]
  virtual void logits(Step& step, const int32_t* rows, int count, float* out) const = 0;
};

/// Makes the model that config.json's `architectures` names. @throws Error kUnsupported, kInvalidModel
std::unique_ptr<Model> make_model(const ConfigMap& config);

}  // namespace detinfer
