#include "attention/support.h"

#include "core/error.h"

namespace detinfer {
namespace {

/// Query heads that may share a KV head.
constexpr int kMaxGroup = 16;

struct Support {
  const char* backend;
  /// Sizes of heads: from the least to the largest in equal steps.
  int least_dim, largest_dim, dim_step;
  /// What others are told.
  const char* dims;
};

constexpr Support kSupport[] = {
    {"fa3", 64, 128, 64, "is neither 64 nor 128"},
    {"flashinfer", 16, 256, 16, "is no multiple of 16 up to 256"},
    {"triton", 64, 128, 64, "is neither 64 nor 128"},
};

}  // namespace

std::vector<std::string> attention_backend_names() {
  std::vector<std::string> names;
  for (const Support& support : kSupport) names.push_back(support.backend);
  return names;
}

void check_attention_backend(const std::string& name, const PagedKvLayout& kv, int heads) {
  const Support* found = nullptr;
  std::string known;
  for (const Support& support : kSupport) {
    if (name == support.backend) found = &support;
    known += std::string(known.empty() ? "" : ", ") + support.backend;
  }
  if (found == nullptr) {
    throw Error(ErrorCode::kUnsupported, "--attention-backend " + name + ": on a GPU this version has " + known);
  }
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::kUnsupported,
                "attention backend " + name + ": " + what + "; choose another attention backend, or --device cpu");
  };
  if (kv.head_dim < found->least_dim || kv.head_dim > found->largest_dim || kv.head_dim % found->dim_step != 0) {
    refuse("head_dim " + std::to_string(kv.head_dim) + " " + found->dims);
  }
  if (kv.page_size < 16 || (kv.page_size & (kv.page_size - 1)) != 0) {
    refuse("page size " + std::to_string(kv.page_size) + " is not 16 times a power of two");
  }
  if (kv.kv_heads < 1 || heads % kv.kv_heads != 0 || heads / kv.kv_heads > kMaxGroup) {
    refuse(std::to_string(heads) + " query heads over " + std::to_string(kv.kv_heads) + " KV heads; at most " +
           std::to_string(kMaxGroup) + " may share one");
  }
}

}  // namespace detinfer
