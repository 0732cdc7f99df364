#include "engine/safetensors.h"

#include <cstring>

#include "core/error.h"
#include "core/mapped_file.h"
#include "core/per_isa.h"
#include "core/thread_pool.h"

namespace detinfer {
namespace {

constexpr const char* kWeightSuffix = ".weight";

[[noreturn]] void invalid(const std::string& message) { throw Error(ErrorCode::kInvalidWeights, message); }

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

/// Whether an infinity or a NaN is among the numbers.
bool has_infinite(const bf16* x, int64_t count) {
  uint16_t found = 0;
  for (int64_t i = 0; i < count; ++i) found |= (x[i].bits & 0x7F80u) == 0x7F80u;
  return found != 0;
}

class SafetensorsSource : public WeightSource {
 public:
  SafetensorsSource(const std::vector<std::string>& paths, std::vector<SafetensorsEntry> entries) {
    for (const std::string& path : paths) files_.emplace_back(path);
    for (SafetensorsEntry& entry : entries) {
      const MappedFile& file = files_.at(entry.file);
      if (entry.begin < 0 || entry.begin > entry.end || uint64_t(entry.end) > file.size()) {
        invalid(file.path() + " is truncated: tensor " + entry.name + " ends at byte " + std::to_string(entry.end) +
                " of " + std::to_string(file.size()) + "; download it again");
      }
      const std::string name = entry.name;
      entries_.emplace(name, std::move(entry));
    }
  }

  void check(const TensorSpec& spec) const override {
    const auto found = entries_.find(spec.name);
    if (found == entries_.end()) invalid(where() + " has no tensor " + spec.name + ", which the model needs");
    const SafetensorsEntry& entry = found->second;
    const std::string tensor = files_[entry.file].path() + ": tensor " + spec.name;
    if (entry.dtype != "BF16") {
      invalid(tensor + " is " + entry.dtype + "; only BF16 is supported, convert the checkpoint to bfloat16");
    }
    if (entry.shape != spec.shape) {
      invalid(tensor + " has shape " + shape_text(entry.shape) + ", but config.json makes it " +
              shape_text(spec.shape));
    }
    if (entry.end - entry.begin != spec.elements() * int64_t(sizeof(bf16))) {
      invalid(tensor + " has " + std::to_string(entry.end - entry.begin) + " bytes, which is not its shape's size");
    }
    refuse_bias(spec.name);
  }

  void read(ThreadPool& pool, const TensorSpec& spec, const Destination& to) const override {
    const SafetensorsEntry& entry = entries_.at(spec.name);
    const MappedFile& file = files_[entry.file];
    const unsigned char* const from = file.data() + entry.begin;
    for_each_range(pool, spec.elements(), to, [&](int64_t begin, int64_t end, bf16* out) {
      std::memcpy(out, from + begin * int64_t(sizeof(bf16)), size_t(end - begin) * sizeof(bf16));
      if (!run_per_isa<has_infinite>(static_cast<const bf16*>(out), end - begin)) return;
      invalid(file.path() + ": tensor " + spec.name + " has a weight that is infinite or not a number; download it again");
    });
  }

 private:
  std::string where() const { return files_.size() == 1 ? files_[0].path() : "the checkpoint"; }

  /// Other tensors that the model does not use are harmless, but a bias beside a weight would be missed.
  void refuse_bias(const std::string& name) const {
    const size_t suffix = std::strlen(kWeightSuffix);
    if (name.size() < suffix || name.compare(name.size() - suffix, suffix, kWeightSuffix) != 0) return;
    const auto found = entries_.find(name.substr(0, name.size() - suffix) + ".bias");
    if (found == entries_.end()) return;
    throw Error(ErrorCode::kUnsupported, files_[found->second.file].path() + ": tensor " + found->first +
                                             " is a bias, which this architecture does not have here");
  }

  std::vector<MappedFile> files_;
  std::map<std::string, SafetensorsEntry> entries_;
};

}  // namespace

std::unique_ptr<WeightSource> open_safetensors(const std::vector<std::string>& files,
                                               std::vector<SafetensorsEntry> entries) {
  return std::make_unique<SafetensorsSource>(files, std::move(entries));
}

}  // namespace detinfer
