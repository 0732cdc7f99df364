#include "attention/backend.h"
#include "attention/fa3/fa3.h"
#include "attention/flashinfer/flashinfer.h"
#include "attention/triton/triton.h"

namespace detinfer {

std::unique_ptr<AttentionBackend> make_attention_backend(const std::string& name, const PagedKvLayout& kv, int heads,
                                                         int64_t pool_pages, const AttentionLimits& limits) {
  check_attention_backend(name, kv, heads);
  if (name == "flashinfer") return make_flashinfer(kv, heads, limits);
  if (name == "triton") return make_triton(kv, heads, pool_pages, limits);
  return make_fa3(kv, heads, pool_pages, limits);
}

}  // namespace detinfer
