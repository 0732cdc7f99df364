#include "device/cpu_ops.h"

#include <cstring>

#include "core/cpu_isa.h"
#include "core/thread_pool.h"
#include "kernels/embedding/embedding.h"
#include "kernels/linear/linear.h"
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
  DeviceMemory memory() const override { return {}; }
  void check_attention(int, const KvLayout&) const override {}  // a model's own limits are the CPU's

  std::shared_ptr<void> allocate(size_t bytes) override {
    auto buffer = std::make_shared<AlignedBuffer<char>>(bytes);
    return std::shared_ptr<void>(buffer, buffer->data());
  }
  std::shared_ptr<void> allocate_host(size_t bytes) override { return allocate(bytes); }
  void upload(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  std::unique_ptr<Matrix> pack(const bf16* weights, int n, int k) override {
    return std::make_unique<CpuMatrix>(pack_matrix(pool_, weights, n, k));
  }

  int64_t mark() override { return 0; }
  void wait(int64_t) override {}
  void prepare(const PassShape& shape) override { shape_ = shape; }

  void embedding(const Matrix& table, const int32_t* ids, int count, const int32_t* drawn, bf16* y) override {
    ids_.assign(ids, ids + count);
    for (int32_t& id : ids_) id = id < 0 ? drawn[-1 - id] : id;
    embedding_cpu(pool_, packed(table), ids_.data(), count, y);
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
  void linear_swiglu(const bf16* x, int rows, const Matrix& w, bf16* y) override {
    linear_swiglu_cpu(pool_, x, rows, packed(w), y);
  }

  void experts(const bf16* x, int rows, const RouteSpec& spec, const Matrix& router, const Matrix& gate_up,
               const Matrix& down, const ExpertWork& work, bf16* out) override {
    experts_cpu(pool_, x, rows, spec, packed(router), packed(gate_up), packed(down), work, out);
  }

  void plan_attention(const AttentionSlice* slices, int count) override {
    slices_ = slices;
    slice_count_ = count;
  }
  void attention(const AttentionArgs& args) override {
    const RopeArgs& rope = args.rope;
    rope_cpu(pool_, rope);
    attention_cpu(pool_, rope.q, shape_.heads, rope.keys, rope.values, shape_.kv, slices_, slice_count_, args.attended);
    linear(args.attended, rope.rows, *args.projection, args.out);
  }

  int request_rows(RowRequest* requests, int count) override {
    requests_ = requests;
    request_count_ = count;
    return 0;
  }
  void evaluate_rows(const float* logits, int, int32_t* drawn) override {
    evaluate_rows_cpu(pool_, logits, request_count_, shape_.vocab, requests_);
    for (int i = 0; i < request_count_; ++i) {
      if (requests_[i].drawn_index >= 0) drawn[requests_[i].drawn_index] = requests_[i].token;
    }
  }
  void deliver_rows(int, RowRequest*, int) override {}

  const std::vector<int>& repeated_rows() const override { return no_rows_; }
  void repeat(int, const std::function<void()>& body) override { body(); }

 private:
  ThreadPool& pool_;
  const std::vector<int> no_rows_;
  PassShape shape_;
  std::vector<int32_t> ids_;
  const AttentionSlice* slices_ = nullptr;
  int slice_count_ = 0;
  RowRequest* requests_ = nullptr;
  int request_count_ = 0;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(ThreadPool& pool) { return std::make_unique<CpuOps>(pool); }

}  // namespace detinfer
