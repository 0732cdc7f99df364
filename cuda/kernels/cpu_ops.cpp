#include "kernels/cpu_ops.h"

#include <cstring>

#include "core/cpu_isa.h"
#include "core/thread_pool.h"
#include "kernels/embedding/embedding.h"
#include "kernels/linear/linear.h"
#include "kernels/mlp/swiglu.h"
#include "kernels/norm/rms_norm.h"

namespace detinfer {
namespace {

class CpuMatrix : public Matrix {
 public:
  explicit CpuMatrix(PackedMatrix packed) : packed_(std::move(packed)) {}
  int n() const override { return packed_.n; }
  int k() const override { return packed_.k; }
  int64_t bytes() const override { return packed_.bytes(); }
  const PackedMatrix& packed() const { return packed_; }

 private:
  PackedMatrix packed_;
};

const PackedMatrix& packed(const Matrix& matrix) { return static_cast<const CpuMatrix&>(matrix).packed(); }

class CpuOps : public Ops {
 public:
  explicit CpuOps(ThreadPool& pool) : pool_(pool) {}

  std::string device_name() const override { return cpu_isa_name(cpu_isa()); }
  int pass_rows() const override { return 1024; }

  std::shared_ptr<void> allocate(size_t bytes) override {
    auto buffer = std::make_shared<AlignedBuffer<char>>(bytes);
    return std::shared_ptr<void>(buffer, buffer->data());
  }
  void upload(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  std::unique_ptr<Matrix> pack(const bf16* weights, int n, int k) override {
    return std::make_unique<CpuMatrix>(pack_matrix(pool_, weights, n, k));
  }

  void embedding(const Matrix& table, const int32_t* ids, int count, bf16* y) override {
    embedding_cpu(pool_, packed(table), ids, count, y);
  }
  void gather_rows(const bf16* table, const int32_t* rows, int count, int n, bf16* y) override {
    detinfer::gather_rows(pool_, table, rows, count, n, y);
  }
  void rms_norm(const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y) override {
    rms_norm_cpu(pool_, x, rows, n, weight, eps, y);
  }
  void add_rms_norm(bf16* residual, const bf16* delta, int rows, int n, const bf16* weight, float eps,
                    bf16* y) override {
    add_rms_norm_cpu(pool_, residual, delta, rows, n, weight, eps, y);
  }
  void linear(const bf16* x, int rows, const Matrix& w, bf16* y) override {
    linear_cpu(pool_, x, rows, packed(w), nullptr, y);
  }
  void linear(const bf16* x, int rows, const Matrix& w, float* y) override {
    linear_cpu(pool_, x, rows, packed(w), nullptr, y);
  }
  void rope(const RopeArgs& args) override { rope_cpu(pool_, args); }
  void attention(const AttentionArgs& args) override {
    attention_cpu(pool_, args.q, args.heads, args.keys, args.values, args.layout, args.slices, args.slice_count,
                  args.out);
  }
  void swiglu(const bf16* gate_up, int rows, int n, bf16* y) override { swiglu_cpu(pool_, gate_up, rows, n, y); }
  void evaluate_rows(const float* logits, int rows, int n, RowRequest* requests) override {
    evaluate_rows_cpu(pool_, logits, rows, n, requests);
  }

 private:
  ThreadPool& pool_;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(ThreadPool& pool) { return std::make_unique<CpuOps>(pool); }

}  // namespace detinfer
