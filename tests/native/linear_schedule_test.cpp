#include "kernels/linear/linear_schedule.h"

#include <set>
#include <string>
#include <vector>

#include "tests/native/check.h"

namespace detinfer::testing {
namespace {

constexpr int kMultiprocessors = 132;

struct Shape {
  int n, k;
};

/// Layers of Qwen3 0.6B, 8B and 32B and of Llama 8B, and of tiny models.
const Shape kShapes[] = {{4096, 1024},   {1024, 2048},   {6144, 1024},   {1024, 3072},  {6144, 4096},  {4096, 4096},
                         {24576, 4096},  {4096, 12288},  {151936, 4096}, {28672, 4096}, {4096, 14336}, {128256, 4096},
                         {10240, 5120},  {5120, 8192},   {51200, 5120},  {5120, 25600}, {320, 128},    {384, 128},
                         {4096, 256},    {32001, 2048},  {8, 8},         {1, 8}};

template <class Body>
void for_each_problem(const Body& body) {
  for (const Shape& shape : kShapes) {
    for (int rows = 1; rows <= 16384; rows += rows < 300 ? 1 : rows / 7) {
      for (LinearOutput output : {LinearOutput::kBf16, LinearOutput::kF32}) {
        body(rows, shape, choose_linear_schedule(rows, shape.n, shape.k, output, kMultiprocessors));
      }
    }
  }
}

void every_problem_has_a_schedule() {
  for_each_problem([](int rows, const Shape& shape, const LinearSchedule& s) {
    const LinearTile& tile = s.shape();
    const std::string what = std::to_string(rows) + " rows, n " + std::to_string(shape.n) + ", k " +
                             std::to_string(shape.k) + ": " + s.text();
    CHECK_MESSAGE((s.stages >= 3 || s.stages == s.steps) && s.shared_bytes() <= kSharedBytes, what);
    CHECK_MESSAGE(s.x_rows % 8 == 0 && s.x_rows <= tile.tokens, what);
    // The tiles cover the matrix, and none lies outside.
    const int tokens = s.token_tiles == 1 ? s.x_rows * tile.cluster_tokens : tile.tokens * tile.cluster_tokens;
    const int outputs = tile.outputs * tile.cluster_outputs;
    CHECK_MESSAGE(s.token_tiles * tokens >= rows && (s.token_tiles - 1) * tokens < rows, what);
    CHECK_MESSAGE(s.output_tiles * outputs >= shape.n && (s.output_tiles - 1) * outputs < shape.n, what);
    CHECK_MESSAGE(s.clusters >= 1 && s.clusters <= s.token_tiles * s.output_tiles, what);
    CHECK_MESSAGE(s.clusters * tile.cluster() <= kMultiprocessors, what);
    CHECK_MESSAGE(s.group >= 1 && s.group <= s.token_tiles, what);
  });
}

void no_tile_is_compiled_in_vain() {
  std::set<int> used;
  for_each_problem([&](int, const Shape&, const LinearSchedule& s) { used.insert(s.tile); });
  for (int tile = 0; tile < kLinearTileCount; ++tile) CHECK_MESSAGE(used.count(tile) == 1, "tile " << tile);
}

void a_schedule_prints_itself() {
  const LinearSchedule s = schedule_of_tile(0, 5, 4096, 4096, kMultiprocessors);
  CHECK_EQ(s.text().substr(0, 5), "8x32 ");
}

}  // namespace

extern const TestTable kLinearScheduleTests = {"linear schedule",
                                               {{"every problem has a schedule", every_problem_has_a_schedule},
                                                {"no tile is compiled in vain", no_tile_is_compiled_in_vain},
                                                {"a schedule prints itself", a_schedule_prints_itself}}};

}  // namespace detinfer::testing
