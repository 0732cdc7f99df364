// What follows attention in a layer of a decoder: one MLP, or a mixture of experts.
#pragma once

#include "layers/parameter.h"
#include "layers/step.h"

namespace detinfer {

class FeedForward {
 public:
  virtual ~FeedForward() = default;

  virtual void collect(ParameterList& parameters) = 0;
  virtual void declare(Workspace& work) const = 0;
  /// Bytes of the loaded weights that one token does not read.
  virtual int64_t unread_bytes() const = 0;

  /// @param x [rows][hidden] @return [rows][hidden], valid until the next layer runs
  virtual bf16* forward(Step& step, const bf16* x) const = 0;
};

}  // namespace detinfer
