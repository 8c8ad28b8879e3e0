"""What people call columns of a table of patients, and what they write in them.

English, German, French, Spanish and Chinese, spelled as :func:`spell_word` does. An entry guesses
nothing by itself: :mod:`helpers.cohort.columns` says what a table was taken for, and why.
"""

from __future__ import annotations

import re
import unicodedata

# What columns are called, by our name for them.
COLUMNS: dict[str, tuple[str, ...]] = {
    "subject": ("subject", "subjectid", "participantid", "participant", "patient", "patientid", "patientnr",
                "patientennummer", "patientenid", "pat", "patid", "person", "personid", "proband", "sujet", "idpatient",
                "paciente", "idpaciente", "sujeto", "患者", "患者id", "患者编号", "病人", "病人id", "受试者",
                "受试者编号", "编号"),
    "scan": ("scan", "scanid", "series", "seriesid", "case", "caseid", "study", "studyid", "exam", "examid", "fall",
             "fallnummer", "untersuchung", "serie", "examen", "cas", "caso", "estudio", "imageid", "filename",
             "file", "datei", "fichier", "archivo", "检查号", "病例", "病例号", "序列", "id", "name"),
    "sex": ("sex", "gender", "patientsex", "patientgender", "sexatbirth", "geschlecht", "sexe", "genre", "sexo",
            "genero", "性别", "病人性别", "患者性别"),
    "age": ("age", "ageyears", "ageinyears", "ageyrs", "patientage", "ageatscan", "ageatimaging", "ageatnephrectomy",
            "agey", "alter", "lebensalter", "alterjahre", "alterinjahren", "agedupatient", "ageannees", "ageans",
            "edad", "edadanos", "年龄", "年龄岁", "患者年龄", "病人年龄"),
    "bmi": ("bmi", "bodymassindex", "bmikgm2", "imc", "koerpermasseindex", "korpermasseindex", "体重指数", "体质指数",
            "身体质量指数"),
    "weight": ("weight", "weightkg", "bodyweight", "patientweight", "gewicht", "korpergewicht", "koerpergewicht",
               "gewichtkg", "poids", "poidskg", "peso", "pesokg", "体重", "体重kg"),
    "height": ("height", "heightcm", "heightm", "bodyheight", "patientsize", "patientheight", "size", "grosse",
               "groesse", "korpergrosse", "koerpergroesse", "grossecm", "taille", "taillecm", "altura", "talla",
               "estatura", "tallacm", "身高", "身高cm"),
    "modality": ("modality", "modalitat", "modalitaet", "modalite", "modalidad", "imagingmodality", "模态", "成像方式",
                 "检查方式"),
    "site": ("site", "center", "centre", "hospital", "institute", "institution", "clinic", "zentrum", "klinik",
             "krankenhaus", "standort", "hopital", "etablissement", "centro", "clinica", "中心", "医院", "机构"),
    "scanner": ("scanner", "scannermodel", "manufacturer", "vendor", "device", "machine", "manufacturermodelname",
                "hersteller", "gerat", "geraet", "fabricant", "constructeur", "appareil", "fabricante", "equipo",
                "escaner", "扫描仪", "设备", "厂商", "机型"),
    "ethnicity": ("ethnicity", "race", "ethnicgroup", "ethnic", "ethnie", "ethnizitat", "ethnizitaet", "etnia", "raza",
                  "民族", "种族"),
    "image": ("image", "imagepath", "imagefile", "img", "bild", "scanpath", "volume", "ct", "mr", "mri", "imagen",
              "图像", "影像"),
    "reference": ("reference", "mask", "maskpath", "label", "labelpath", "labels", "segmentation", "seg",
                  "groundtruth", "gt", "maske", "masque", "mascara", "掩膜", "标注", "分割"),
}  # fmt: skip

# What sexes are recorded as, where the word or letter says it alone.
SEXES: dict[str, str] = {
    **dict.fromkeys(("f", "female", "woman", "girl", "w", "weiblich", "frau", "femme", "feminin", "feminine", "mujer",
                     "femenino", "femenina", "hembra", "女", "女性"), "female"),
    **dict.fromkeys(("m", "male", "man", "boy", "mannlich", "maennlich", "mann", "homme", "masculin", "masculine",
                     "hombre", "masculino", "varon", "h", "男", "男性"), "male"),
}  # fmt: skip
# What it means beside another: hombre and mujer.
SEXES_BESIDE_H = {"h": "male", "m": "female"}
# ISO/IEC 5218; a table need not follow it, so it is told and not taken.
SEX_CODES = {"1": "male", "2": "female"}

MODALITIES: dict[str, str] = {
    **dict.fromkeys(("ct", "cect", "ncct", "cbct", "computedtomography", "computertomographie", "tdm", "scanner", "tac",
                     "tc", "计算机断层扫描"), "CT"),
    **dict.fromkeys(("mr", "mri", "mrt", "irm", "rm", "rmn", "magneticresonance", "磁共振"), "MR"),
}  # fmt: skip

# Words in the names of files and folders that tell what masks are.
REFERENCE_WORDS = frozenset((
    "mask", "masks", "label", "labels", "labelstr", "labelsts", "labelsva", "seg", "segs", "segmentation",
    "segmentations", "gt", "groundtruth", "truth", "reference", "references", "ref", "expert", "experts", "manual",
    "annotation", "annotations", "annotated", "maske", "masken", "masque", "masques", "mascara", "mascaras", "referenz",
    "referenzen", "标注", "掩膜", "分割", "金标准",
))  # fmt: skip
PREDICTION_WORDS = frozenset((
    "pred", "preds", "predicted", "prediction", "predictions", "output", "outputs", "result", "results", "inference",
    "model", "models", "auto", "automatic", "nnunet", "nnunetv2", "unet", "totalsegmentator", "totalseg", "medsam",
    "sam", "sat", "vista", "monai", "swin", "ours", "baseline", "ai", "net", "network", "vorhersage", "vorhersagen",
    "prediccion", "predicciones", "预测",
))  # fmt: skip


def spell_word(text: str) -> str:
    """Return a text's letters and digits alone, without accents, in small letters.

    Examples
    --------
    >>> spell_word("Größe (cm)"), spell_word("Âge"), spell_word("性别 ")
    ('grossecm', 'age', '性别')
    """
    apart = unicodedata.normalize("NFKD", text.casefold())
    return re.sub(r"[\W_]+", "", "".join(letter for letter in apart if not unicodedata.combining(letter)))
