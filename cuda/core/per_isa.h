// One body compiled for every instruction set. `run_per_isa<body>(…)` calls the copy for cpu_isa(). The body is plain
// code that the compiler vectorises; it and every function that it calls must be visible here, since `flatten` inlines
// them all, which is what gives them the caller's instruction set.
#pragma once

#include "core/cpu_isa.h"

namespace detinfer {

#if defined(__x86_64__)

template <auto body, class... Args>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"), flatten)) auto run_avx512(Args... args) {
  return body(args...);
}

template <auto body, class... Args>
__attribute__((target("avx2,fma"), flatten)) auto run_avx2(Args... args) {
  return body(args...);
}

#endif

template <auto body, class... Args>
auto run_per_isa(Args... args) {
#if defined(__x86_64__)
  if (cpu_isa() == CpuIsa::kAvx512) return run_avx512<body>(args...);
  if (cpu_isa() == CpuIsa::kAvx2) return run_avx2<body>(args...);
#endif
  return body(args...);
}

}  // namespace detinfer
