"""The units that ECMWF's parameters have in ERA5, by GRIB short name."""

from __future__ import annotations

from functools import cache

# As eccodes tells them for edition 1, or 2 where 1 does not know the parameter.
_TABLE = """
%: r
(0 - 1): alnid alnip aluvd aluvp asn cc ci cl cvh cvl fal hcc lcc lsm mcc tcc
1: avg_ilspf bfi cdww chnk flsr ilspf isor lshf msqs phiaw phioc slor tauoc wsk wsp wss
1: ptype slt tvh tvl
J kg**-1: cape cin
J m**-2: bld cdir fdir gwd slhf sshf ssr ssrc ssrd ssrdc str strc strd strdc tisr tsr tsrc ttr
J m**-2: ttrc uvb
K: 2d 2t istl1 istl2 istl3 istl4 kx lblt lict lmlt ltlt mn2t mx2t skt sst stl1 stl2 stl3 stl4 t
K: totalx tsn
K m**2 kg**-1 s**-1: pv
N m**-2: avg_iegwss avg_iews avg_ingwss avg_inss iews inss
N m**-2 s: ewss lgws mgws nsss
Pa: msl sp
Pa s**-1: w
W m**-2: avg_ibld avg_igwd avg_ishf avg_sdirswrf avg_sdirswrfcs avg_sdlwrf avg_sdlwrfcs
W m**-2: avg_sdswrf avg_sdswrfcs avg_sduvrf avg_slhtf avg_snlwrf avg_snlwrfcs avg_snswrf
W m**-2: avg_snswrfcs avg_tdswrf avg_tnlwrf avg_tnlwrfcs avg_tnswrf avg_tnswrfcs ishf
degree: dwi mdts mdww mwd mwd1 mwd2 mwd3
kg kg**-1: ciwc clwc crwc cswc o3 q
kg m**-2: tciw tclw tco3 tcrw tcslw tcsw tcw tcwv vimd
kg m**-2 s**-1: avg_cpr avg_csfr avg_esrwe avg_ie avg_lsprate avg_lssfr avg_pevr avg_rorwe avg_smr
kg m**-2 s**-1: avg_ssurfror avg_surfror avg_tprate avg_tsrwe avg_vimdf crr csfr ie lsrr lssfr
kg m**-2 s**-1: mntpr mxtpr
kg m**-3: rhoao rsn
km**-2 day**-1: licga1 licga3 licga6 licgi litota1 litota3 litota6 litoti
m: blh cbh cp csf dctb deg0l dl e es fsr hmax licd lmld lsf lsp pev ro sd sdfor sdor sf shts shww
m: smlt src sro ssro swh swh1 swh2 swh3 tp tplb tplt wmb
m s**-1: 100u 100v 10fg 10u 10v i10fg u u10n ust v v10n vst wind wstar zust
m**-1: dndza dndzn
m**2 m**-2: lai_hv lai_lv
m**2 s**-2: z
m**3 m**-3: swvl1 swvl2 swvl3 swvl4
radian: anor dwps dwww wdw
s: lspf mp1 mp2 mpts mpww mwp mwp1 mwp2 mwp3 p1ps p1ww p2ps p2ww pp1d tmax
s**-1: d vo
"""


def ecmwf_unit(short_name: str) -> str | None:
    """The unit of a parameter; None where it is not in the table."""
    return _units().get(short_name)


@cache
def _units() -> dict[str, str]:
    lines = (line.partition(": ") for line in _TABLE.strip().splitlines())
    return {name: unit for unit, _, names in lines for name in names.split()}
