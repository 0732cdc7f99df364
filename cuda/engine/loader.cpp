#include "engine/loader.h"

#include "core/error.h"

namespace detinfer {
namespace {

/// Far above any model: kernels count rows and columns as int, and round them up.
constexpr int64_t kMaxRows = 1 << 30;
constexpr int64_t kMaxColumns = 1 << 24;

void check_size(const MatrixParameter& matrix) {
  const int64_t rows = matrix.rows(), columns = matrix.parts[0].shape[1];
  if (rows <= kMaxRows && columns <= kMaxColumns) return;
  throw Error(ErrorCode::kUnsupported, "config.json: a weight matrix of " + std::to_string(rows) + " rows and " +
                                           std::to_string(columns) + " columns (" + matrix.parts[0].name +
                                           ") is not supported");
}

}  // namespace

int64_t weight_bytes(const ParameterList& parameters) {
  int64_t bytes = 0;
  parameters.for_each_tensor([&](const TensorSpec& spec) { bytes += spec.elements() * int64_t(sizeof(bf16)); });
  return bytes;
}

void check_parameters(const ParameterList& parameters, const WeightSource& source) {
  for (const MatrixParameter* matrix : parameters.matrices) check_size(*matrix);
  parameters.for_each_tensor([&](const TensorSpec& spec) { source.check(spec); });
}

void load_parameters(const ParameterList& parameters, const WeightSource& source, ThreadPool& pool, Ops& ops,
                     const std::function<void(int64_t, int64_t)>& progress) {
  const int64_t total = weight_bytes(parameters);
  int64_t done = 0;
  // Two buffers, so that one is filled while the device copies from the other.
  struct Staging {
    std::shared_ptr<void> memory;
    int64_t bytes = 0;
    int64_t mark = -1;
  };
  Staging buffers[2];
  int turn = 0;
  const auto read = [&](const TensorSpec* specs, size_t count, int group) {
    int64_t elements = 0;
    for (size_t i = 0; i < count; ++i) elements += specs[i].elements();
    const int64_t bytes = elements * int64_t(sizeof(bf16));
    Staging& staging = buffers[turn];
    if (staging.mark >= 0) ops.wait(staging.mark);
    if (staging.bytes < bytes) {
      staging.memory.reset();
      staging.memory = ops.allocate_host(size_t(bytes));
      staging.bytes = bytes;
    }
    auto* out = static_cast<bf16*>(staging.memory.get());
    for (size_t i = 0; i < count; ++i) {
      const int64_t run = group * specs[i].shape.back();
      if (group == 0) {
        source.read(pool, specs[i], {out, specs[i].elements(), 0});
      } else {
        // The second of a pair begins a run behind the first.
        source.read(pool, specs[i], {i % 2 == 0 ? out : out - specs[i].elements() + run, run, 2 * run});
      }
      out += specs[i].elements();
    }
    done += bytes;
    return static_cast<const bf16*>(staging.memory.get());
  };
  const auto sent = [&] {
    buffers[turn].mark = ops.mark();
    turn ^= 1;
  };
  progress(0, total);
  for (VectorParameter* vector : parameters.vectors) {
    const size_t elements = size_t(vector->spec.elements());
    vector->value = DeviceArray<bf16>(ops, elements);
    ops.upload(vector->value.data(), read(&vector->spec, 1, 0), elements * sizeof(bf16));
    sent();
  }
  for (MatrixParameter* matrix : parameters.matrices) {
    const bf16* const weights = read(matrix->parts.data(), matrix->parts.size(), matrix->group);
    matrix->value = ops.pack(weights, matrix->n(), matrix->k());
    sent();
    progress(done, total);
  }
  for (const Staging& staging : buffers) {
    if (staging.mark >= 0) ops.wait(staging.mark);
  }
}

}  // namespace detinfer
