"""Generated details of a unit: what the complete form adds, made anew from the seed each time it is asked for."""

from __future__ import annotations

import random
from dataclasses import dataclass

from siorg_simulator.rows import HOST

_DUTIES = (
    "planejar, coordenar e supervisionar a execução das atividades de sua área de atuação",
    "assessorar a direção superior na formulação de políticas e diretrizes institucionais",
    "elaborar relatórios gerenciais e acompanhar indicadores de desempenho",
    "gerir contratos, convênios e instrumentos congêneres sob sua responsabilidade",
    "promover a capacitação dos servidores lotados na unidade",
    "zelar pelo patrimônio e pela guarda dos documentos sob sua responsabilidade",
    "propor normas e procedimentos para a melhoria contínua dos serviços",
    "articular ações com as demais unidades acadêmicas e administrativas",
    "atender às demandas dos órgãos de controle interno e externo",
    "exercer outras atribuições que lhe forem conferidas pela autoridade competente",
)
_PURPOSES = (
    "Apoiar o ensino, a pesquisa e a extensão pela gestão eficiente dos recursos humanos, materiais e financeiros.",
    "Promover a formação de profissionais qualificados e a produção de conhecimento para o desenvolvimento regional.",
    "Assegurar a regularidade dos atos administrativos e a qualidade do atendimento à comunidade interna e externa.",
)
_MISSIONS = (
    "Produzir e socializar conhecimentos, contribuindo com a formação de cidadãos e profissionais qualificados.",
    "Prestar serviços de excelência à comunidade acadêmica com ética, transparência e responsabilidade social.",
)
_STREETS = (
    "Avenida Fernando Corrêa da Costa", "Rua Quarenta e Nove", "Avenida Alexandre Ferronato",
    "Rodovia Rondonópolis-Guiratinga, km 06", "Avenida Valdon Varjão", "Esplanada dos Ministérios, Bloco C",
)  # fmt: skip
# Where: city (IBGE), state, CEP, district, dialling code. One CEP begins with zero, which SIORG loses as an integer.
_PLACES = (
    (5103403, "MT", "78060900", "Boa Esperança", "65"),
    (5107602, "MT", "78735901", "Sagrada Família", "66"),
    (5107909, "MT", "78550728", "Residencial Cidade Jardim", "66"),
    (5101803, "MT", "78600000", "Setor Industrial", "66"),
    (5108402, "MT", "78110000", "Centro", "65"),
    (3550308, "SP", "07061908", "Jardim Presidente Dutra", "11"),
)
_HOURS = ("8h às 12h e 14h às 18h", "07:30 às 11:30 e 13:30 às 17:30", "Segunda a sexta, das 8h às 18h")

_WITHOUT_CONTACT = 0.16
"""Share of units without address and contact: of the 330 órgãos and entidades of 2026-08, 52 had none."""


@dataclass(frozen=True, slots=True)
class GeneratedDetails:
    """See structure.Details. Equal seeds and codes give equal details; two numbers take the place of two kilobytes."""

    seed: int
    code: int
    dirt: bool = True
    is_root: bool = False

    def fields(self) -> dict[str, object]:
        """See structure.Details."""
        draw = random.Random(self.seed * 1_000_003 + self.code)  # noqa: S311  made-up data, not secrets
        reachable = self.is_root or draw.random() >= _WITHOUT_CONTACT
        category = 2 if self.is_root else draw.choice((1, 6, 7))
        place = draw.choice(_PLACES)
        duties = draw.sample(_DUTIES, 6)
        return {
            "codigoCategoriaUnidade": f"https://{HOST}/id/categoria-unidade/{category}",
            "competencia": "Compete à unidade: " + "; ".join(f"{n} - {duty}" for n, duty in enumerate(duties, 1)) + ".",
            "finalidade": draw.choice(_PURPOSES),
            "missao": draw.choice(_MISSIONS),
            "descricaoAtoNormativo": draw.choice(("", ".", ".\n\n", None)) if self.dirt else None,
            "atoNormativo": self._act(draw) if self.is_root else None,
            "areaAtuacao": draw.choice(("FIM", "FIM", "MEIO", None)),
            "endereco": [self._address(draw, place)] if reachable else [],
            "contato": [self._contact(draw, place[4])] if reachable else [],
            "autoridade": {
                "cargoFuncao": {
                    "siglaTipo": "CD" if self.is_root else "FG",
                    "categoria": None,
                    "nivel": str(draw.randint(1, 4)),
                },
                "denominacao": {"descricao": "Reitor" if self.is_root else draw.choice(("Diretor", "Coordenador", "Chefe"))},
            },
        }

    def _address(self, draw: random.Random, place: tuple[int, str, str, str, str]) -> dict[str, object]:
        city, state, zip_code, district, _ = place
        number: int | str = draw.randint(1, 9999)
        code: int | str = zip_code
        country: int | None = 1058
        if self.dirt:
            number = draw.choice((number, str(number), "S/N", f"{number} "))
            code = draw.choice((zip_code, int(zip_code), f"{zip_code[:5]}-{zip_code[5:]}"))
            country = draw.choice((1058, None))
        return {
            "tipoEndereco": "Principal",
            "logradouro": draw.choice(_STREETS),
            "numero": number if self.dirt else str(number),
            "complemento": draw.choice(("Bloco A", "Térreo", "1º andar", "", None)),
            "bairro": district,
            "cep": code,
            "uf": state,
            "municipio": str(city) if self.dirt and draw.random() < 0.2 else city,
            "pais": country,
            "horarioDeFuncionamento": draw.choice(_HOURS),
        }

    def _contact(self, draw: random.Random, area: str) -> dict[str, object]:
        name = f"unidade{self.code}"
        phones = [f"(55) ({area}) 3{draw.randint(2000000, 9999999)}" for _ in range(draw.randint(1, 2))]
        site = f"https://www.exemplo.gov.br/{name}"
        if self.dirt:
            phones = draw.choice((phones, [*phones, phones[0]], [f" {phones[0]} "], [phones[0].replace(" ", "\xa0")]))
            site = draw.choice((site, f" {site}", f"http://{site}", f"www.exemplo.gov.br/{name}", f"{site}."))
        return {
            "telefone": phones,
            "email": [f"{name}@exemplo.gov.br"],
            "site": [{"tipo": "Site Institucional", "site": site, "outroTipoSite": None}],
        }

    def _act(self, draw: random.Random) -> dict[str, object]:
        return {
            "tipoAto": "Lei",
            "codigoUnidade": self.code,
            "numero": str(draw.randint(1000, 9999)),
            "dataAssinatura": "1970-12-10",
            "dataPublicacao": "1970-12-11",
            "dataVigencia": "1970-12-11",
            "ementa": "Autoriza o Poder Executivo a instituir a Fundação e dá outras providências.",
            "url": "https://www.planalto.gov.br/",
            "siglaTipo": "LEI",
        }
