#include "engine/loader.h"

#include "core/aligned.h"

namespace detinfer {

int64_t weight_bytes(const ParameterList& parameters) {
  int64_t bytes = 0;
  parameters.for_each_tensor([&](const TensorSpec& spec) { bytes += spec.elements() * int64_t(sizeof(bf16)); });
  return bytes;
}

void check_parameters(const ParameterList& parameters, const WeightSource& source) {
  parameters.for_each_tensor([&](const TensorSpec& spec) { source.check(spec); });
}

void load_parameters(const ParameterList& parameters, const WeightSource& source, ThreadPool& pool, Ops& ops,
                     const std::function<void(int64_t, int64_t)>& progress) {
  const int64_t total = weight_bytes(parameters);
  int64_t done = 0;
  AlignedBuffer<bf16> staging;
  const auto read = [&](const TensorSpec* specs, size_t count) {
    int64_t elements = 0;
    for (size_t i = 0; i < count; ++i) elements += specs[i].elements();
    if (staging.size() < size_t(elements)) {
      staging = AlignedBuffer<bf16>();
      staging = AlignedBuffer<bf16>(size_t(elements));
    }
    bf16* out = staging.data();
    for (size_t i = 0; i < count; ++i) {
      source.read(pool, specs[i], out);
      out += specs[i].elements();
    }
    done += elements * int64_t(sizeof(bf16));
    return size_t(elements);
  };
  progress(0, total);
  for (VectorParameter* vector : parameters.vectors) {
    const size_t elements = read(&vector->spec, 1);
    vector->value = DeviceArray<bf16>(ops, elements);
    ops.upload(vector->value.data(), staging.data(), elements * sizeof(bf16));
  }
  for (MatrixParameter* matrix : parameters.matrices) {
    read(matrix->parts.data(), matrix->parts.size());
    matrix->value = ops.pack(staging.data(), matrix->n(), matrix->k());
    progress(done, total);
  }
}

}  // namespace detinfer
