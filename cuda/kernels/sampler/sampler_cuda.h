// From rows of logits to log-probabilities and tokens on a GPU; logits never go to the host. Bits equal
// evaluate_row_reference.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/sampler/sampler.h"

typedef struct CUstream_st* cudaStream_t;

namespace detinfer {

/// A call goes through send() and run(), both asynchronous and in the stream's order, and ends with deliver() once the
/// stream has passed run(). Several calls may be under way at the same time.
class CudaSampler {
 public:
  /// @param vocab logits of a row @param max_rows of one call @throws Error kOutOfMemory
  CudaSampler(int vocab, int max_rows);
  ~CudaSampler();

  /// Copies what the rows ask for, and all that the requests point to, and sends it to the device.
  /// @return a number for the call, for deliver()
  int send(const RowRequest* requests, int count, cudaStream_t stream);

  /// Works on the rows of the last send(); rows beyond its count are left alone. Which kernels are launched, and with which
  /// arguments, depends on `logits`, `rows` and `drawn` alone, so that a captured graph serves every call.
  /// @param logits [rows][vocab] in the device's memory @param drawn gets each drawn token at its request's drawn_index
  void run(const float* logits, int rows, int32_t* drawn, cudaStream_t stream);

  /// Writes the results where the requests of send(), given again, say. @throws Error kEngineFailed for an infinite or NaN
  /// logit
  void deliver(int call, RowRequest* requests, int count);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace detinfer
