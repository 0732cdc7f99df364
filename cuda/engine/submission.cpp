#include "engine/submission.h"

#include <algorithm>

namespace detinfer {

void Submission::start(const std::vector<ForwardSlice>& slices, int page_size) {
  tokens.clear();
  positions.clear();
  slots.clear();
  slices_.clear();
  draws_.clear();
  calls_.clear();
  next_row_ = next_wanted_ = 0;
  next_slice_ = 0;
  for (const ForwardSlice& slice : slices) {
    slices_.push_back({int(tokens.size()), slice.token_count, slice.start, slice.pages});
    draws_.push_back(slice.sample.has_value());
    for (int i = 0; i < slice.token_count; ++i) {
      const int position = slice.start + i;
      tokens.push_back(slice.tokens[i]);
      positions.push_back(position);
      slots.push_back(int64_t(slice.pages[position / page_size]) * page_size + position % page_size);
    }
  }
  results_.assign(slices.size(), SliceResult());
  collect_wanted(slices);
}

bool Submission::next_pass(const PassLimits& limits, Pass& pass) {
  pass.slices.clear();
  pass.begin = pass.end = next_row_;
  pass.only_decodes = true;
  int splits = 0;
  while (next_slice_ < slices_.size() && int(pass.slices.size()) < limits.slices) {
    const AttentionSlice& slice = slices_[next_slice_];
    const int done = pass.end - slice.first_row;
    const int rows = std::min(slice.rows - done, limits.rows - (pass.end - pass.begin));
    if (rows == 0) break;
    if (rows == 1) {
      splits += (slice.start + done) / kSplitKeys + 1;
      if (splits > limits.decode_splits && !pass.slices.empty()) break;
    } else {
      pass.only_decodes = false;
    }
    pass.slices.push_back({pass.end - pass.begin, rows, slice.start + done, slice.pages});
    pass.end += rows;
    if (done + rows == slice.rows) ++next_slice_;
  }
  next_row_ = pass.end;
  return pass.end > pass.begin;
}

int Submission::wanted_count(int end, int limit) const {
  int count = 0;
  while (count < limit && next_wanted_ + count < int(wanted_.size()) && wanted_[next_wanted_ + count].row < end) ++count;
  return count;
}

RowRequest* Submission::take_wanted(int count, int first_row, std::vector<int32_t>& rows) {
  rows.clear();
  for (int i = 0; i < count; ++i) rows.push_back(wanted_[next_wanted_ + i].row - first_row);
  RowRequest* const requests = requests_.data() + next_wanted_;
  next_wanted_ += count;
  return requests;
}

const std::vector<SliceResult>& Submission::finish(Ops& ops) {
  for (const Call& call : calls_) {
    ops.deliver_rows(call.id, requests_.data() + call.first, call.count);
    for (int i = call.first; i < call.first + call.count; ++i) {
      if (wanted_[i].logprob) *wanted_[i].logprob = requests_[i].logprob;
      if (wanted_[i].token) *wanted_[i].token = requests_[i].token;
    }
  }
  return results_;
}

void Submission::collect_wanted(const std::vector<ForwardSlice>& slices) {
  const auto make_report = [](std::optional<Report>& made, const ReportSpec& spec, int rows) -> Report& {
    Report& report = made.emplace();
    report.logprobs.assign(rows, NAN);
    report.top_logprobs.resize(size_t(rows) * spec.top);
    report.top_ids.resize(size_t(rows) * spec.top);
    report.token_id_logprobs.resize(size_t(rows) * spec.token_id_count);
    return report;
  };
  wanted_.clear();
  requests_.clear();
  for (size_t i = 0; i < slices.size(); ++i) {
    const ForwardSlice& slice = slices[i];
    const int first = slices_[i].first_row;
    if (slice.score) {
      const ScoreSpec& score = *slice.score;
      Report& report = make_report(results_[i].scored, score.report, score.target_count);
      for (int t = 0; t < score.target_count; ++t) {
        RowRequest request;
        request.target = score.targets[t];
        want(first + score.first_row + t, slice, score.report, t, &report, request, nullptr);
      }
    }
    if (slice.sample) {
      const SampleSpec& sample = *slice.sample;
      Report* report = nullptr;
      if (sample.logprob || !sample.report.is_empty()) report = &make_report(results_[i].sampled, sample.report, 1);
      RowRequest request;
      request.sample = &sample.args;
      request.drawn_index = int32_t(i);
      request.sampled_logprob = sample.logprob;
      want(first + slice.token_count - 1, slice, sample.report, 0, report, request, &results_[i].token);
    }
  }
}

void Submission::want(int row, const ForwardSlice& slice, const ReportSpec& spec, int index, Report* report,
                      RowRequest request, int32_t* token) {
  request.logprob_temperature = slice.logprob_temperature;
  if (report) {
    request.top = spec.top;
    request.token_ids = spec.token_ids;
    request.token_id_count = spec.token_id_count;
    request.top_logprobs = report->top_logprobs.data() + int64_t(index) * spec.top;
    request.top_ids = report->top_ids.data() + int64_t(index) * spec.top;
    request.token_id_logprobs = report->token_id_logprobs.data() + int64_t(index) * spec.token_id_count;
  }
  requests_.push_back(request);
  wanted_.push_back({row, report ? report->logprobs.data() + index : nullptr, token});
}

}  // namespace detinfer
