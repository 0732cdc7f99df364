// Runs a check on every instruction set that this machine has.
#pragma once

#include "core/cpu_isa.h"

namespace detinfer::testing {

template <class Body>
void for_each_isa(const Body& body) {
  const CpuIsa before = cpu_isa();
  for (CpuIsa isa : {CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kPortable}) {
    if (!cpu_has(isa)) continue;
    set_cpu_isa(isa);
    body(cpu_isa_name(isa));
  }
  set_cpu_isa(before);
}

}  // namespace detinfer::testing
