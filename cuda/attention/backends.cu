#include "attention/backend.h"
#include "attention/fa3/fa3.h"
#include "attention/flashinfer/flashinfer.h"
#include "attention/triton/triton.h"
#include "core/error.h"

namespace detinfer {
namespace {

struct Backend {
  const char* name;
  std::unique_ptr<AttentionBackend> (*make)(const PagedKvLayout& kv, int heads, int64_t pool_pages,
                                            const AttentionLimits& limits);
};

constexpr Backend kBackends[] = {
    {"fa3", make_fa3},
    {"flashinfer", make_flashinfer},
    {"triton", make_triton},
};

}  // namespace

std::vector<std::string> attention_backend_names() {
  std::vector<std::string> names;
  for (const Backend& backend : kBackends) names.push_back(backend.name);
  return names;
}

std::unique_ptr<AttentionBackend> make_attention_backend(const std::string& name, const PagedKvLayout& kv, int heads,
                                                         int64_t pool_pages, const AttentionLimits& limits) {
  std::string known;
  for (const Backend& backend : kBackends) {
    if (name == backend.name) return backend.make(kv, heads, pool_pages, limits);
    known += std::string(known.empty() ? "" : ", ") + backend.name;
  }
  throw Error(ErrorCode::kUnsupported, "--attention-backend " + name + ": on a GPU this version has " + known);
}

}  // namespace detinfer
