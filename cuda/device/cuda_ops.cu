#include "device/cuda_ops.h"

#include <cstdio>
#include <utility>

#include "attention/backend.h"
#include "device/cuda_device.cuh"
#include "device/cuda_stream.cuh"
#include "kernels/embedding/embedding_cuda.h"
#include "kernels/linear/linear_cuda.h"
#include "kernels/moe/moe_cuda.h"
#include "kernels/norm/rms_norm_cuda.h"
#include "kernels/sampler/sampler_cuda.h"

namespace detinfer {
namespace {

/// Holds the inputs of a step: 20 bytes a row and some more for each wanted one.
constexpr size_t kStagingBytes = 4 << 20;

std::string gib(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", double(bytes) / double(1 << 30));
  return text;
}

/// Memory of the device, or an error that says what to lower.
void* allocate_on_device(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is not sticky, but the next check must not find it
    size_t free = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&free, &total));
    throw Error(ErrorCode::kOutOfMemory,
                "the GPU has " + gib(free) + " of " + gib(total) + " free, but " + gib(bytes) +
                    " more are needed; lower --mem-fraction-static, --max-total-tokens or --max-running-requests, or "
                    "end other programs on this GPU");
  }
  CUDA_CHECK(status);
  return memory;
}

class CudaMatrix : public Matrix {
 public:
  CudaMatrix(std::shared_ptr<void> memory, int n, int k) : memory_(std::move(memory)) {
    device_ = {static_cast<const bf16*>(memory_.get()), n, k};
  }
  int n() const override { return device_.n; }
  int k() const override { return device_.k; }
  int64_t bytes() const override { return int64_t(device_.n) * device_.k * int64_t(sizeof(bf16)); }
  const DeviceMatrix& device() const { return device_; }

 private:
  std::shared_ptr<void> memory_;
  DeviceMatrix device_;
};

const DeviceMatrix& device(const Matrix& matrix) { return static_cast<const CudaMatrix&>(matrix).device(); }

/// Numbers of rows for which a graph is recorded: finely graded where a tile of rows is small.
std::vector<int> graph_sizes(int max_batch) {
  std::vector<int> sizes;
  for (int size = 1; size <= max_batch; size = size < 4 ? size * 2 : size < 64 ? (size / 8 + 1) * 8 : size + 16) {
    sizes.push_back(size);
  }
  if (!sizes.empty() && sizes.back() < max_batch) sizes.push_back(max_batch);
  return sizes;
}

class CudaOps : public Ops {
 public:
  explicit CudaOps(const CudaOptions& options)
      : properties_(select_cuda_device(options.device)),
        graph_sizes_(graph_sizes(options.graph_max_batch)),
        staging_(kStagingBytes),
        attention_backend_(options.attention_backend) {}
  ~CudaOps() override { cudaStreamSynchronize(stream()); }

  std::string device_name() const override { return properties_.name; }
  int pass_rows() const override { return 8192 + 512; }
  DeviceMemory memory() const override {
    size_t free = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return {int64_t(total), int64_t(free)};
  }
  void check_attention(int heads, const KvLayout& kv) const override {
    constexpr int kAnyPage = 16;
    check_attention_backend(attention_backend_, {kv.kv_heads, kv.head_dim, kAnyPage}, heads);
  }

  std::shared_ptr<void> allocate(size_t bytes) override {
    if (bytes == 0) return nullptr;
    std::shared_ptr<void> memory(allocate_on_device(bytes), [](void* p) { cudaFree(p); });
    CUDA_CHECK(cudaMemsetAsync(memory.get(), 0, bytes, stream()));
    return memory;
  }
  std::shared_ptr<void> allocate_host(size_t bytes) override {
    void* memory = nullptr;
    CUDA_CHECK(cudaMallocHost(&memory, bytes));
    return std::shared_ptr<void>(memory, [](void* p) { cudaFreeHost(p); });
  }
  void upload(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) staging_.upload(to, from, bytes, stream());
  }
  void download(void* to, const void* from, size_t bytes) override {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream()));
    CUDA_CHECK(cudaStreamSynchronize(stream()));
  }
  void copy(void* to, const void* from, size_t bytes) override {
    upload_async(to, from, bytes, stream());
  }
  std::unique_ptr<Matrix> pack(const bf16* weights, int n, int k) override {
    if (k % 8 != 0) {
      throw Error(ErrorCode::kUnsupported, "a weight matrix has " + std::to_string(k) +
                                               " columns; the CUDA engine needs a multiple of 8. Use --device cpu");
    }
    const size_t bytes = size_t(n) * size_t(k) * sizeof(bf16);
    std::shared_ptr<void> memory(allocate_on_device(bytes), [](void* p) { cudaFree(p); });
    CUDA_CHECK(cudaMemcpyAsync(memory.get(), weights, bytes, cudaMemcpyHostToDevice, stream()));
    return std::make_unique<CudaMatrix>(std::move(memory), n, k);
  }

  int64_t mark() override { return staging_.mark(stream()); }
  void wait(int64_t mark) override { staging_.wait(mark); }

  void prepare(const PassShape& shape) override {
    const PassLimits& limits = shape.limits;
    kv_heads_ = shape.kv.kv_heads;
    attention_ = make_attention_backend(
        attention_backend_, {shape.kv.kv_heads, shape.kv.head_dim, shape.kv.page_size}, shape.heads, shape.pages,
        AttentionLimits{limits.slices, limits.rows, shape.pages_per_slice, limits.decode_splits});
    sampler_ = std::make_unique<CudaSampler>(shape.vocab, limits.logits_rows);
  }

  void embedding(const Matrix& table, const int32_t* ids, int count, const int32_t* drawn, bf16* y) override {
    embedding_cuda(device(table), ids, count, drawn, y, stream());
  }
  void gather_rows(const bf16* table, const int32_t* rows, int count, int n, bf16* y) override {
    gather_rows_cuda(table, rows, count, n, y, stream());
  }
  void rms_norm(const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y) override {
    rms_norm_cuda(x, rows, n, weight, eps, y, stream());
  }
  void add_rms_norm(bf16* residual, const bf16* delta, int rows, int n, const bf16* weight, float eps,
                    bf16* y) override {
    add_rms_norm_cuda(residual, delta, rows, n, weight, eps, y, stream());
  }
  void linear(const bf16* x, int rows, const Matrix& w, bf16* y) override {
    linear_cuda(x, rows, device(w), nullptr, y, stream());
  }
  void linear(const bf16* x, int rows, const Matrix& w, float* y) override {
    linear_cuda(x, rows, device(w), nullptr, y, stream());
  }
  void linear_swiglu(const bf16* x, int rows, const Matrix& w, bf16* y) override {
    linear_swiglu_cuda(x, rows, device(w), y, stream());
  }

  void experts(const bf16* x, int rows, const RouteSpec& spec, const Matrix& router, const Matrix& gate_up,
               const Matrix& down, const ExpertWork& work, bf16* out) override {
    experts_cuda(x, rows, spec, device(router), device(gate_up), device(down), work, out, stream());
  }

  void plan_attention(const AttentionSlice* slices, int count) override {
    attention_->plan(slices, count, stream());
  }
  void attention(const AttentionArgs& args) override {
    const int rows = args.rope.rows;
    attention_->run(args.rope, args.attended, stream());
    // One row's attention holds a multiprocessor for each KV head at least, which the projection had better not wait for.
    const int held = rows == 1 ? kv_heads_ : 0;
    linear_cuda(args.attended, rows, device(*args.projection), nullptr, args.out, stream(), held);
  }

  int request_rows(RowRequest* requests, int count) override { return sampler_->send(requests, count, stream()); }
  void evaluate_rows(const float* logits, int rows, int32_t* drawn) override {
    sampler_->run(logits, rows, drawn, stream());
  }
  void deliver_rows(int call, RowRequest* requests, int count) override { sampler_->deliver(call, requests, count); }

  const std::vector<int>& repeated_rows() const override { return graph_sizes_; }
  void repeat(int key, const std::function<void()>& body) override { graphs_.run(key, body, stream()); }

 private:
  cudaStream_t stream() const { return stream_.get(); }

  cudaDeviceProp properties_;
  std::vector<int> graph_sizes_;
  CudaStream stream_;
  UploadStaging staging_;
  CudaGraphs graphs_;
  std::string attention_backend_;
  int kv_heads_ = 0;
  std::unique_ptr<AttentionBackend> attention_;
  std::unique_ptr<CudaSampler> sampler_;
};

}  // namespace

std::unique_ptr<Ops> make_cuda_ops(const CudaOptions& options) { return std::make_unique<CudaOps>(options); }

}  // namespace detinfer
