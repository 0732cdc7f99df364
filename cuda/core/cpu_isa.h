// Which instruction set the CPU path uses. All of them give the same bits.
#pragma once

namespace detinfer {

enum class CpuIsa { kPortable, kAvx2, kAvx512 };

/// The best set that this machine has, or the one named by DETINFER_CPU_ISA (avx512, avx2, plain), read once.
/// @throws Error kUnsupported for an unknown name or a set that the machine lacks.
CpuIsa cpu_isa();

/// "avx512", "avx2" or "plain".
const char* cpu_isa_name(CpuIsa isa);

/// Replaces the choice of cpu_isa(); for tests that compare the sets. @throws Error kUnsupported
void set_cpu_isa(CpuIsa isa);

bool cpu_has(CpuIsa isa);

}  // namespace detinfer
