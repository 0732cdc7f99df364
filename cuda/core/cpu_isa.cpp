#include "core/cpu_isa.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "core/error.h"

namespace detinfer {
namespace {

constexpr CpuIsa kAll[] = {CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kPortable};

CpuIsa choose() {
  const char* wanted = std::getenv("DETINFER_CPU_ISA");
  for (CpuIsa isa : kAll) {
    if (wanted == nullptr || *wanted == '\0') {
      if (cpu_has(isa)) return isa;
    } else if (std::string(wanted) == cpu_isa_name(isa)) {
      if (cpu_has(isa)) return isa;
      throw Error(ErrorCode::kUnsupported, std::string("DETINFER_CPU_ISA=") + wanted + ": this CPU does not have it");
    }
  }
  throw Error(ErrorCode::kUnsupported,
              std::string("DETINFER_CPU_ISA=") + wanted + ": unknown; use avx512, avx2 or plain");
}

std::atomic<CpuIsa>& chosen() {
  static std::atomic<CpuIsa> isa{choose()};
  return isa;
}

}  // namespace

bool cpu_has(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
  if (isa == CpuIsa::kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  if (isa != CpuIsa::kPortable) return false;
#endif
  return true;
}

CpuIsa cpu_isa() { return chosen().load(std::memory_order_relaxed); }

void set_cpu_isa(CpuIsa isa) {
  if (!cpu_has(isa)) throw Error(ErrorCode::kUnsupported, std::string("this CPU lacks ") + cpu_isa_name(isa));
  chosen().store(isa);
}

const char* cpu_isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512: return "avx512";
    case CpuIsa::kAvx2: return "avx2";
    default: return "plain";
  }
}

}  // namespace detinfer
