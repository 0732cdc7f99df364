// Every operation that a model is made of, as a table of functions: models and layers call it and never see a device.
// What each one computes is written in the contract header of its kernel folder. Pointers are to the device's memory
// unless said otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/numerics.h"
#include "kernels/attention/attention.h"
#include "kernels/moe/moe.h"
#include "kernels/rope/rope.h"
#include "kernels/sampler/sampler.h"

namespace detinfer {

/// Bytes of the device's memory; both 0 where it is the host's.
struct DeviceMemory {
  int64_t total = 0;
  int64_t free = 0;
};

/// A weight matrix [n][k] in a device's own layout.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int n() const = 0;
  virtual int k() const = 0;
  virtual int64_t bytes() const = 0;
};

/// From q, k, v to the output projection of one layer.
struct AttentionArgs {
  RopeArgs rope;
  /// [rows][heads][head_dim]
  bf16* attended = nullptr;
  const Matrix* projection = nullptr;
  /// [rows][projection->n()]
  bf16* out = nullptr;
};

/// What the passes of an engine hold at most. A pass is a run of the model over the rows of some slices.
struct PassLimits {
  int rows = 0;
  int slices = 0;
  /// Splits of 512 keys over all slices of one row.
  int decode_splits = 0;
  /// Rows whose logits are made at a time.
  int logits_rows = 0;
};

/// What a device prepares for before the first pass.
struct PassShape {
  PassLimits limits;
  int vocab = 0;
  int heads = 0;
  KvLayout kv;
  int64_t pages = 0;
  int pages_per_slice = 0;
};

/// Work is asynchronous where a device is: it is done in the order of the calls, and wait() says when.
class Ops {
 public:
  virtual ~Ops() = default;

  /// Name of the GPU or instruction set.
  virtual std::string device_name() const = 0;
  /// Most rows that make a pass faster per row: a pass of more only needs larger buffers.
  virtual int pass_rows() const = 0;
  virtual DeviceMemory memory() const = 0;
  /// Refuses, before anything is loaded, heads that attention() can't do. @param heads query heads @param kv page_size
  /// unset @throws Error kUnsupported
  virtual void check_attention(int heads, const KvLayout& kv) const = 0;

  /// Zeroed memory, which the device may commit on first use. @throws Error kOutOfMemory
  virtual std::shared_ptr<void> allocate(size_t bytes) = 0;
  /// Memory of the host that the device copies from fastest. @throws Error kOutOfMemory
  virtual std::shared_ptr<void> allocate_host(size_t bytes) = 0;
  /// Copies from host memory, which may be changed as soon as this returns.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  /// Copies to host memory, once all work so far is done.
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  /// Copies within the device's memory.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  /// @param weights row-major [n][k] in host memory, unchanged until a later mark() has passed
  virtual std::unique_ptr<Matrix> pack(const bf16* weights, int n, int k) = 0;

  /// A point behind all work so far. Staging memory is reused behind it: at most two marks may be waited for.
  virtual int64_t mark() = 0;
  virtual void wait(int64_t mark) = 0;

  /// To be called once, before any of what follows. @throws Error kUnsupported, kOutOfMemory
  virtual void prepare(const PassShape& shape) = 0;

  /// @param drawn tokens of the step before: a negative id stands for drawn[-1 - id]
  virtual void embedding(const Matrix& table, const int32_t* ids, int count, const int32_t* drawn, bf16* y) = 0;
  virtual void gather_rows(const bf16* table, const int32_t* rows, int count, int n, bf16* y) = 0;
  virtual void rms_norm(const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y) = 0;
  virtual void add_rms_norm(bf16* residual, const bf16* delta, int rows, int n, const bf16* weight, float eps,
                            bf16* y) = 0;
  virtual void linear(const bf16* x, int rows, const Matrix& w, bf16* y) = 0;
  virtual void linear(const bf16* x, int rows, const Matrix& w, float* y) = 0;
  /// SwiGLU of a linear of gate and up. @param w their rows in groups (kernels/mlp/swiglu.h) @param y [rows][w.n() / 2]
  virtual void linear_swiglu(const bf16* x, int rows, const Matrix& w, bf16* y) = 0;

  /// A layer of experts (kernels/moe/moe.h). @param gate_up, down all experts' matrices, one below the other; of each, rows
  /// of gate and up in groups (kernels/mlp/swiglu.h) @param work arrays of the device
  virtual void experts(const bf16* x, int rows, const RouteSpec& spec, const Matrix& router, const Matrix& gate_up,
                       const Matrix& down, const ExpertWork& work, bf16* out) = 0;

  /// Says which slices attention() works on in all layers of a pass. @param slices in host memory, as their pages;
  /// unchanged until the pass is over
  virtual void plan_attention(const AttentionSlice* slices, int count) = 0;
  /// Rope (kernels/rope/rope.h), attention of its queries over the slices' keys and values, and a linear. No slice reads
  /// keys that the pass makes for another one. @param args rope's q is for work between, and may be left unwritten
  virtual void attention(const AttentionArgs& args) = 0;

  /// Says what the next evaluate_rows() is asked. @param requests in host memory, as everything that they point to; read
  /// until that returns @return a number for deliver_rows()
  virtual int request_rows(RowRequest* requests, int count) = 0;
  /// @param logits [rows][vocab]; rows beyond those requested are left alone
  /// @param drawn gets each drawn token at its request's drawn_index
  virtual void evaluate_rows(const float* logits, int rows, int32_t* drawn) = 0;
  /// Fills in the results, behind a mark that followed evaluate_rows(). @param requests those of request_rows(), perhaps
  /// moved @throws Error kEngineFailed for an infinite or NaN logit
  virtual void deliver_rows(int call, RowRequest* requests, int count) = 0;

  /// Numbers of rows for which a pass of decodes is best padded and run through repeat(), ascending; empty: none.
  virtual const std::vector<int>& repeated_rows() const = 0;
  /// Runs `body`. Its calls and their arguments are the same whenever the key is, so a device may record and replay them.
  virtual void repeat(int key, const std::function<void()>& body) = 0;
};

/// An array in the device's memory.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(Ops& ops, size_t count) : memory_(ops.allocate(count * sizeof(T))), count_(count) {}

  T* data() { return static_cast<T*>(memory_.get()); }
  const T* data() const { return static_cast<const T*>(memory_.get()); }
  size_t size() const { return count_; }

 private:
  std::shared_ptr<void> memory_;
  size_t count_ = 0;
};

}  // namespace detinfer
