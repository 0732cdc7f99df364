// Rope and attention as one operation of each backend, whose decoding may do both in one kernel: steps of decodes over
// several layers in a replayed graph, against the CPU, bit for bit, outputs and keys and values in the pools.
#include <algorithm>
#include <memory>
#include <numeric>
#include <string>

#include "attention/backend.h"
#include "kernels/embedding/embedding_cuda.h"
#include "kernels/rope/rope_table.h"
#include "tests/cuda/device_buffer.h"
#include "tests/cuda/pool.h"
#include "tests/native/check.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

struct Shape {
  int heads, kv_heads, dim, page_size;
  bool q_norm, k_norm;

  int all_heads() const { return heads + 2 * kv_heads; }
  std::string text() const {
    return std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads of " + std::to_string(dim) + ", pages of " +
           std::to_string(page_size) + (q_norm ? ", q" : "") + (k_norm ? ", k" : "");
  }
};

/// Sequences of these lengths behind each other in shuffled pages, which grow by a row each in every step. A layer's q, k
/// and v are heads of the attention of the layer before it.
class Model {
 public:
  static constexpr int kSteps = 3;

  Model(const Shape& shape, const std::vector<int>& lengths, int layers, uint64_t seed)
      : shape(shape),
        cpu{shape.kv_heads, shape.dim, shape.page_size},
        gpu{shape.kv_heads, shape.dim, shape.page_size},
        rows(int(lengths.size())),
        layers(layers),
        longest(*std::max_element(lengths.begin(), lengths.end()) + kSteps),
        random_(seed),
        lengths_(lengths) {
    for (int length : lengths) {
      firsts_.push_back(pages);
      pages += (length + kSteps + shape.page_size - 1) / shape.page_size;
    }
    ids_.resize(pages);
    std::iota(ids_.begin(), ids_.end(), 0);
    std::shuffle(ids_.begin(), ids_.end(), random_);
    // Slots that are not written yet hold the largest finite value.
    keys.assign(size_t(layers * pages * cpu.page_elements()), bf16{0x7F7F});
    values = keys;
    const std::vector<bf16> table = draw(Operands::kNormal, 1 << 16, random_);
    for (int i = 0; i < rows; ++i) fill(i, table);
    q_norm = draw(Operands::kNormal, shape.dim, random_);
    k_norm = draw(Operands::kNormal, shape.dim, random_);
    const auto frequencies = rope_frequencies(RopeSpec(), shape.dim);
    cos.resize(size_t(longest) * shape.dim / 2);
    sin.resize(cos.size());
    fill_rope_tables(pool(), frequencies, longest, cos.data(), sin.data());
    for (int row = 0; row < rows; ++row) {
      for (int head = 0; head < shape.all_heads(); ++head) heads_of.push_back(row * shape.heads + head % shape.heads);
    }
  }

  /// Plans the next step and runs it on the CPU. @return what attention of the last layer gives
  std::vector<bf16> step() {
    positions.clear();
    slots.clear();
    slices.clear();
    for (int i = 0; i < rows; ++i) {
      const int position = lengths_[i]++;
      positions.push_back(position);
      slots.push_back(slot(i, position));
      slices.push_back({i, 1, position, &ids_[firsts_[i]]});
    }
    qkv = draw(Operands::kNormal, size_t(rows) * shape.all_heads() * shape.dim, random_);
    std::vector<bf16> x = qkv, q(size_t(rows) * shape.heads * shape.dim), out(q.size());
    for (int layer = 0; layer < layers; ++layer) {
      RopeArgs args = rope_args(*this, x.data(), layer);
      args.q = q.data();
      args.layout = cpu;
      rope_reference(args);
      attention_cpu(pool(), q.data(), shape.heads, args.keys, args.values, cpu, slices.data(), rows, out.data());
      for (size_t i = 0; i < heads_of.size(); ++i) std::copy_n(&out[heads_of[i] * shape.dim], shape.dim, &x[i * shape.dim]);
    }
    return out;
  }

  /// @param data of the CPU or the GPU: arrays named as here
  template <class Data>
  RopeArgs rope_args(Data& data, const bf16* qkv, int layer) const {
    RopeArgs args;
    args.qkv = qkv;
    args.rows = rows;
    args.heads = shape.heads;
    args.positions = data.positions.data();
    args.slots = data.slots.data();
    args.cos = data.cos.data();
    args.sin = data.sin.data();
    args.q_norm = shape.q_norm ? data.q_norm.data() : nullptr;
    args.k_norm = shape.k_norm ? data.k_norm.data() : nullptr;
    args.eps = 1e-6f;
    args.keys = data.keys.data() + layer * pages * cpu.page_elements();
    args.values = data.values.data() + layer * pages * cpu.page_elements();
    return args;
  }

  /// The pools as a GPU lays them out.
  std::vector<bf16> on_gpu(const std::vector<bf16>& from, bool are_keys) const {
    std::vector<bf16> to(from.size());
    for (int page = 0; page < layers * pages; ++page) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        for (int slot = 0; slot < shape.page_size; ++slot) {
          for (int dim = 0; dim < shape.dim; ++dim) {
            to[gpu.offset(page, head, slot, dim)] =
                from[are_keys ? cpu.key_offset(page, head, slot, dim) : cpu.value_offset(page, head, slot, dim)];
          }
        }
      }
    }
    return to;
  }

  Shape shape;
  KvLayout cpu;
  PagedKvLayout gpu;
  int rows, layers, longest, pages = 0;
  /// Of the step.
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  std::vector<AttentionSlice> slices;
  std::vector<bf16> qkv;
  std::vector<bf16> keys, values, q_norm, k_norm;
  std::vector<float> cos, sin;
  /// Where each head of a layer's q, k and v comes from.
  std::vector<int32_t> heads_of;

 private:
  int64_t slot(int sequence, int position) const {
    return int64_t(ids_[firsts_[sequence] + position / shape.page_size]) * shape.page_size + position % shape.page_size;
  }

  /// Gives a sequence keys and values. @param table 65,536 to take them from
  void fill(int sequence, const std::vector<bf16>& table) {
    for (int position = 0; position < lengths_[sequence]; ++position) {
      const int64_t at = slot(sequence, position), page = at / shape.page_size;
      for (int layer = 0; layer < layers; ++layer) {
        for (int head = 0; head < shape.kv_heads; ++head) {
          for (int dim = 0; dim < shape.dim; ++dim) {
            const int in_page = int(at % shape.page_size);
            const uint32_t random = uint32_t(random_());
            keys[cpu.key_offset(layer * pages + page, head, in_page, dim)] = table[random & 0xFFFF];
            values[cpu.value_offset(layer * pages + page, head, in_page, dim)] = table[random >> 16];
          }
        }
      }
    }
  }

  std::mt19937_64 random_;
  std::vector<int> lengths_, firsts_;
  std::vector<int32_t> ids_;
};

class OnGpu {
 public:
  OnGpu(const std::string& backend, const Model& model)
      : positions(model.rows),
        slots(model.rows),
        keys(model.on_gpu(model.keys, true)),
        values(model.on_gpu(model.values, false)),
        q_norm(model.q_norm),
        k_norm(model.k_norm),
        cos(model.cos),
        sin(model.sin),
        model_(model),
        first_qkv_(size_t(model.rows) * model.shape.all_heads() * model.shape.dim),
        qkv_(first_qkv_.size()),
        q_(size_t(model.rows) * model.shape.heads * model.shape.dim),
        out_(q_.size()),
        heads_of_(model.heads_of) {
    AttentionLimits limits;
    limits.slices = limits.rows = model.rows;
    limits.pages_per_slice = (model.longest + model.shape.page_size - 1) / model.shape.page_size;
    limits.decode_splits = model.rows * (model.longest / kSplitKeys + 1);
    attention_ = make_attention_backend(backend, model.gpu, model.shape.heads, model.pages, limits);
    CUDA_CHECK(cudaStreamCreate(&stream_));
  }
  ~OnGpu() {
    cudaGraphExecDestroy(replay_);
    cudaStreamDestroy(stream_);
  }

  /// The step that the model has planned, in a graph that is recorded the first time.
  std::vector<bf16> step() {
    attention_->plan(model_.slices.data(), model_.rows, stream_);
    upload(positions, model_.positions);
    upload(slots, model_.slots);
    upload(first_qkv_, model_.qkv);
    if (replay_ == nullptr) record();
    out_.poison();
    CUDA_CHECK(cudaDeviceSynchronize());
    CUDA_CHECK(cudaGraphLaunch(replay_, stream_));
    return out_.download();
  }

  DeviceBuffer<int32_t> positions;
  DeviceBuffer<int64_t> slots;
  DeviceBuffer<bf16> keys, values, q_norm, k_norm;
  DeviceBuffer<float> cos, sin;

 private:
  template <class T>
  void upload(DeviceBuffer<T>& to, const std::vector<T>& from) {
    CUDA_CHECK(cudaMemcpyAsync(to.data(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice, stream_));
  }

  void record() {
    const Shape& shape = model_.shape;
    cudaGraph_t graph;
    CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    for (int layer = 0; layer < model_.layers; ++layer) {
      RopeArgs args = model_.rope_args(*this, layer == 0 ? first_qkv_.data() : qkv_.data(), layer);
      args.q = q_.data();
      attention_->run(args, out_.data(), stream_);
      gather_rows_cuda(out_.data(), heads_of_.data(), model_.rows * shape.all_heads(), shape.dim, qkv_.data(), stream_);
    }
    CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&replay_, graph, 0));
    CUDA_CHECK(cudaGraphDestroy(graph));
  }

  const Model& model_;
  DeviceBuffer<bf16> first_qkv_, qkv_, q_, out_;
  DeviceBuffer<int32_t> heads_of_;
  std::unique_ptr<AttentionBackend> attention_;
  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t replay_ = nullptr;
};

void check(const std::string& backend, const Shape& shape, const std::vector<int>& lengths, int layers, uint64_t seed) {
  Model model(shape, lengths, layers, seed);
  OnGpu gpu(backend, model);
  const std::string what = std::to_string(lengths.size()) + " rows, " + shape.text();
  for (int step = 0; step < Model::kSteps; ++step) {
    const std::vector<bf16> expected = model.step();
    check_same(gpu.step(), expected, what + ", step " + std::to_string(step));
  }
  check_same(gpu.keys.download(), model.on_gpu(model.keys, true), what + ", keys");
  check_same(gpu.values.download(), model.on_gpu(model.values, false), what + ", values");
}

/// Steps from every place in a block of keys and around the ends of splits, as deep as a model, then ragged ones.
void steps_equal_the_cpu(const std::string& backend) {
  const Shape shape{8, 2, 128, 16, true, true};
  check(backend, shape, {0}, 36, 1);
  for (int length : {15, 126, 509, 510, 1021, 4094}) check(backend, shape, {length}, 3, length);
  check(backend, {32, 8, 128, 128, true, true}, {5000}, 2, 2);
  std::mt19937_64 random(3);
  const int groups[] = {1, 2, 4, 5, 7, 8, 3, 12, 16}, page_sizes[] = {16, 128, 32, 64, 1024};
  for (int trial = 0; trial < 27; ++trial) {
    Shape ragged;
    ragged.kv_heads = 1 + int(random() % 3);
    ragged.heads = ragged.kv_heads * groups[trial % 9];
    ragged.dim = trial % 2 ? 64 : 128;
    ragged.page_size = page_sizes[trial % 5];
    ragged.q_norm = random() % 2;
    ragged.k_norm = random() % 2;
    std::vector<int> lengths(trial % 3 ? 1 + random() % 8 : 1 + random() % 40);
    for (int& length : lengths) length = int(random() % (random() % 4 ? 600 : 2500));
    check(backend, ragged, lengths, 2, random());
  }
}

/// Heads of every size that is compiled or padded to one.
void other_head_dims(const std::string& backend) {
  for (int dim : {16, 32, 48, 80, 96, 112, 160, 240, 256}) {
    for (int group : {3, 12}) check(backend, {2 * group, 2, dim, 32, dim % 32 == 0, true}, {40, 511, 700, 1100}, 2, dim);
  }
}

/// What scripts/sanitize.mjs runs.
void small_case(const std::string& backend) {
  for (const Shape& shape : {Shape{6, 2, 128, 16, true, true}, Shape{10, 1, 64, 256, false, false}}) {
    check(backend, shape, {1100, 40, 0}, 2, 4);
  }
}

template <const char* kName>
std::vector<Test> tests_of_backend() {
  return {{"steps equal the CPU", [] { steps_equal_the_cpu(kName); }},
          {"a small case of every kernel", [] { small_case(kName); }}};
}

constexpr char kFa3[] = "fa3", kFlashinfer[] = "flashinfer", kTriton[] = "triton";

std::vector<Test> flashinfer_tests() {
  std::vector<Test> tests = tests_of_backend<kFlashinfer>();
  tests.push_back({"every head_dim equals the CPU", [] { other_head_dims(kFlashinfer); }});
  return tests;
}

}  // namespace

extern const TestTable kCudaFa3RopeTests = {"cuda rope and attention fa3", tests_of_backend<kFa3>()};
extern const TestTable kCudaFlashinferRopeTests = {"cuda rope and attention flashinfer", flashinfer_tests()};
extern const TestTable kCudaTritonRopeTests = {"cuda rope and attention triton", tests_of_backend<kTriton>()};

}  // namespace detinfer::testing
