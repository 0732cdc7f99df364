#include "core/error.h"
#include "models/families.h"
#include "models/model.h"

namespace detinfer {
namespace {

struct Family {
  const char* architecture;
  std::unique_ptr<Model> (*make)(const ConfigMap& config);
};

constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", make_llama},
    {"Qwen3ForCausalLM", make_qwen3},
    {"Qwen3MoeForCausalLM", make_qwen3_moe},
};

}  // namespace

std::unique_ptr<Model> make_model(const ConfigMap& config) {
  const std::string wanted = config.text("architectures.0");
  std::string known;
  for (const Family& family : kFamilies) {
    if (wanted == family.architecture) return family.make(config);
    known += std::string(known.empty() ? "" : ", ") + family.architecture;
  }
  throw Error(ErrorCode::kUnsupported, "the architecture " + wanted + " is not supported; supported are " + known);
}

}  // namespace detinfer
