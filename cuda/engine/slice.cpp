#include "engine/slice.h"

#include <cmath>
#include <string>

#include "core/error.h"

namespace detinfer {
namespace {

class SliceCheck {
 public:
  SliceCheck(size_t index, const ForwardSlice& slice, const SliceLimits& limits)
      : index_(index), slice_(slice), limits_(limits) {}

  void run() const {
    const int64_t end = int64_t(slice_.start) + slice_.token_count;
    require(slice_.token_count > 0, "has no tokens");
    require(slice_.start >= 0, "starts at a negative position");
    require(end <= limits_.context_length, [&] {
      return "ends at position " + std::to_string(end) + ", past the context length of " +
             std::to_string(limits_.context_length);
    });
    require(int64_t(slice_.page_count) * limits_.page_size >= end, [&] {
      return "has " + std::to_string(slice_.page_count) + " pages of " + std::to_string(limits_.page_size) +
             " tokens for " + std::to_string(end) + " positions";
    });
    for (int i = 0; i < slice_.page_count; ++i) {
      const int32_t page = slice_.pages[i];
      require(page >= 0 && page < limits_.pages,
              [&] { return "names page " + std::to_string(page) + " of " + std::to_string(limits_.pages); });
    }
    require(slice_.logprob_temperature > 0.0f, "has a logprob temperature that is not positive");
    const int last = slice_.token_count - 1;
    ids(slice_.tokens, last, "token");
    if (slice_.tokens[last] >= 0) {
      ids(slice_.tokens + last, 1, "token");
    } else {
      const int drawn = -1 - slice_.tokens[last];
      require(limits_.is_drawn && limits_.is_drawn(drawn), [&] {
        return "refers to slice " + std::to_string(drawn) + " of the step before, which draws no token";
      });
    }
    if (slice_.score) score(*slice_.score);
    if (slice_.sample) sample(*slice_.sample);
  }

 private:
  void require(bool holds, const char* what) const {
    if (!holds) fail(what);
  }

  /// @param what makes the words, which every page and every token would cost otherwise
  template <class Words>
  void require(bool holds, const Words& what) const {
    if (!holds) fail(what());
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kInvalidRequest, "slice " + std::to_string(index_) + " " + what);
  }

  void ids(const int32_t* ids, int count, const char* what) const {
    for (int i = 0; i < count; ++i) {
      require(ids[i] >= 0 && ids[i] < limits_.vocab_size, [&] {
        return std::string("has ") + what + " id " + std::to_string(ids[i]) + ", outside the vocabulary of " +
               std::to_string(limits_.vocab_size);
      });
    }
  }

  void report(const ReportSpec& spec) const {
    require(spec.top >= 0 && spec.top <= limits_.vocab_size,
            [&] { return "asks for " + std::to_string(spec.top) + " top tokens"; });
    ids(spec.token_ids, spec.token_id_count, "reported");
  }

  void score(const ScoreSpec& spec) const {
    require(spec.first_row >= 0 && int64_t(spec.first_row) + spec.target_count <= slice_.token_count,
            "scores rows that it does not have");
    ids(spec.targets, spec.target_count, "target");
    report(spec.report);
  }

  void sample(const SampleSpec& spec) const {
    const SampleArgs& args = spec.args;
    require(args.greedy || (args.temperature > 0.0f && std::isfinite(args.temperature)),
            "samples at a temperature that is not positive");
    require(args.top_k == -1 || args.top_k >= 1, "has a top_k that is neither -1 nor positive");
    require(args.top_p > 0.0 && args.top_p <= 1.0, "has a top_p outside (0, 1]");
    require(args.min_p >= 0.0 && args.min_p <= 1.0, "has a min_p outside [0, 1]");
    ids(args.bias_ids, args.bias_count, "biased");
    for (int i = 0; i < args.bias_count; ++i) {
      require(args.bias_values[i] < INFINITY, "has a bias that is not a number or is infinite");
    }
    const PenaltyArgs& penalties = args.penalties;
    require(std::isfinite(penalties.frequency) && std::isfinite(penalties.presence) &&
                std::isfinite(penalties.repetition) && penalties.repetition > 0.0f,
            "has a penalty out of range");
    ids(penalties.ids, penalties.count, "penalised");
    if (args.allowed) allowed(args.allowed, spec.allowed_words);
    report(spec.report);
  }

  void allowed(const uint32_t* words, int count) const {
    const int wanted = (limits_.vocab_size + 31) / 32;
    require(count == wanted, [&] {
      return "has a mask of " + std::to_string(count) + " words; the vocabulary of " +
             std::to_string(limits_.vocab_size) + " needs " + std::to_string(wanted);
    });
    const int last_tokens = limits_.vocab_size - 32 * (wanted - 1);
    uint32_t any = words[wanted - 1] & (~uint32_t(0) >> (32 - last_tokens));
    for (int i = 0; i < wanted - 1; ++i) any |= words[i];
    require(any != 0, "has a mask that allows no token");
  }

  size_t index_;
  const ForwardSlice& slice_;
  const SliceLimits& limits_;
};

}  // namespace

void check_slices(const std::vector<ForwardSlice>& slices, const SliceLimits& limits) {
  for (size_t i = 0; i < slices.size(); ++i) SliceCheck(i, slices[i], limits).run();
}

}  // namespace detinfer
