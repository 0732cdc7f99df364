// Shares of prefill that take equally long, for thread blocks that each compute one.
#pragma once

#include "attention/plan.h"

namespace detinfer {

/// Shares out all pairs of a tile and a KV head, as equally as whole splits allow. A pair may be cut once: then its
/// first keys are the first piece of a share, and the others the last piece of the next share.
/// @param tiles heaviest first @param tile_positions of a full one @param most shares
/// @param pieces gets those of one share after another, count · kv_heads + most at most
/// @param begins gets the number of pieces before each share, and that of all
/// @return the number of shares; 0 if whole pairs, dealt heaviest first, forth and back, take about as long
int share_out(const PrefillTile* tiles, int count, int kv_heads, int tile_positions, int most, PrefillPiece* pieces,
              int32_t* begins);

}  // namespace detinfer
